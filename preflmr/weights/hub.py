"""Uploads a checkpoint to the hub."""

import os
from typing import Any

from huggingface_hub import HfApi


def upload(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> Any:
    """All files of a folder, to a repository that is made if it is not there; returns what the hub says of it."""
    api = HfApi(token=token)
    made = api.create_repo(repo_id, private=private, exist_ok=True)
    return api.upload_folder(
        repo_id=made.repo_id,
        folder_path=folder,
        commit_message=commit_message or "Upload model",
        revision=revision,
        create_pr=create_pr,
    )
