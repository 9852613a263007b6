"""A folder of M-BEIR (Wei et al., UniIR, arXiv 2311.17136), whose queries and candidates have words, pictures or both.

========================================  ============================================================================
``query/SPLIT/mbeir_TASK_SPLIT.jsonl``    ``qid``, ``query_txt``, ``query_img_path``, ``query_modality``,
                                          ``pos_cand_list`` of ids
``cand_pool/local/mbeir_TASK_*.jsonl``    ``did``, ``txt``, ``img_path``, ``modality``; of all tasks together in
                                          ``cand_pool/global/mbeir_union_test_cand_pool.jsonl``
``instructions/query_instructions.tsv``   modalities of query and candidate, name and id of the data set, and prompts
========================================  ============================================================================

TASK is a data set with its task's number, such as ``webqa_task1``. A row's instruction is the first prompt for its
modalities; pictures are below the folder, as their paths say.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from preflmr.data import rows
from preflmr.data.images import Images
from preflmr.data.renamed import Renamed
from preflmr.data.rows import Table

QUERY = ("qid", "query_txt", "query_img_path", "query_modality", "pos_cand_list")
CANDIDATE = ("did", "txt", "img_path")
INSTRUCTIONS = "instructions/query_instructions.tsv"


def is_mbeir(folder: Path) -> bool:
    """Whether a folder holds M-BEIR."""
    return (folder / "query").is_dir() and (folder / "cand_pool").is_dir()


class Place:
    """Where questions, candidates and pictures of a task are.

    Args:
        folder: of M-BEIR.
        task: such as ``webqa_task1``.
    """

    def __init__(self, folder: Path, task: str) -> None:
        self.folder, self.task = folder, task

    def questions(self, split: str) -> Table:
        """In M2KR's columns.

        Raises:
            FileNotFoundError: there is no such task or split.
        """
        inner = {"valid": "val"}.get(split, split)
        folder = self.folder / "query" / inner
        table = rows.find(folder, f"mbeir_{self.task}_{inner}")
        if table is None:
            known = sorted(path.stem.removeprefix("mbeir_") for path in folder.glob("mbeir_*.jsonl"))
            raise FileNotFoundError(
                f"{folder} must hold mbeir_{self.task}_{inner}.jsonl, found {', '.join(known) or 'none'}"
            )
        prompts = _prompts(self.folder / INSTRUCTIONS)
        return Renamed(table, QUERY, partial(_question, prompts, self._modality(split)))

    def passages(self, split: str) -> Table:
        """In M2KR's columns.

        Raises:
            FileNotFoundError: there are no candidates.
        """
        return Renamed(self._pool(split), CANDIDATE, _passage)

    def images(self, split: str) -> Images:
        """Paths begin below the folder."""
        return Images(self.folder)

    def _pool(self, split: str) -> Table:
        local, inner = self.folder / "cand_pool" / "local", {"valid": "val"}.get(split, split)
        for folder, stem in (
            (local, f"mbeir_{self.task}_{inner}_cand_pool"),
            (local, f"mbeir_{self.task}_cand_pool"),
            (self.folder / "cand_pool" / "global", f"mbeir_union_{inner}_cand_pool"),
            (self.folder / "cand_pool" / "global", "mbeir_union_test_cand_pool"),
        ):
            if table := rows.find(folder, stem):
                return table
        raise FileNotFoundError(f"{local} must hold mbeir_{self.task}_cand_pool.jsonl, found none")

    def _modality(self, split: str) -> str | None:
        """Of the candidates, those of one task are all of one kind."""
        first = next(iter(self._pool(split).rows((), ("modality",), limit=1)), None)
        return None if first is None else first.columns.get("modality")


def _question(
    prompts: Mapping[tuple[str, str, str], str], modality: str | None, row: Mapping[str, Any]
) -> dict[str, Any]:
    id = str(row["qid"])
    key = id.partition(":")[0], str(row.get("query_modality")), str(modality)
    return {
        "question_id": id,
        "question": row.get("query_txt") or "",
        "img_path": row.get("query_img_path") or None,
        "instruction": prompts.get(key),
        "pos_item_ids": [one["did"] if isinstance(one, dict) else one for one in row["pos_cand_list"] or ()],
    }


def _passage(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "passage_id": row["did"],
        "passage_content": row.get("txt") or "",
        "img_path": row.get("img_path") or None,
    }


def _prompts(path: Path) -> dict[tuple[str, str, str], str]:
    """The first prompt by data set, modality of the query and modality of the candidate."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file, delimiter="\t"))[1:]
    return {(line[3], line[0], line[1]): next((one for one in line[4:] if one), "") for line in lines if len(line) > 4}
