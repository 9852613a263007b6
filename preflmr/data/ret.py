"""A folder of ReT's M2KR (Caffagni et al., arXiv 2503.01980), whose passages have pictures.

==================================  ===================================================================================
``TASK_SPLIT.jsonl``                ``data_id``, ``question``, ``instruction``, ``image_path``, ``passage_id`` (one or
                                    a list), and if any ``answer``, a list
``TASK_passages_SPLIT.jsonl``       ``passage_id``, ``passage_text``, ``passage_image_path``
==================================  ===================================================================================

TASK is in small letters, such as ``okvqa``; questions of E-VQA's test are in ``evqa_test_m2kr.jsonl``. Pictures lie
elsewhere, which must be said.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preflmr.data import rows
from preflmr.data.renamed import Renamed
from preflmr.data.rows import Table

QUESTION = ("data_id", "question", "instruction", "image_path", "passage_id", "answer")
PASSAGE = ("passage_id", "passage_text", "passage_image_path")


def is_ret(folder: Path) -> bool:
    """Whether a folder holds passages of ReT's M2KR."""
    return any(folder.glob("*_passages_*.jsonl*"))


class Place:
    """Where questions and passages of a task are.

    Args:
        folder: of ``jsonl`` files.
        task: in any case.
    """

    def __init__(self, folder: Path, task: str) -> None:
        self.folder, self.task = folder, task.lower()

    def questions(self, split: str) -> Table:
        """In M2KR's columns."""
        return Renamed(self._table(f"{self.task}_%s_m2kr", f"{self.task}_%s", split=split), QUESTION, _question)

    def passages(self, split: str) -> Table:
        """In M2KR's columns; of the test where a split has none of its own."""
        own = f"{self.task}_passages_%s"
        return Renamed(self._table(own, own.replace("%s", "test"), split=split), PASSAGE, _passage)

    def images(self, split: str) -> None:
        """They lie elsewhere."""

    def _table(self, *stems: str, split: str) -> Table:
        for name in {"valid": ("valid", "val", "dev")}.get(split, (split,)):
            for stem in stems:
                if table := rows.find(self.folder, stem.replace("%s", name)):
                    return table
        known = ", ".join(rows.stems(self.folder))
        raise FileNotFoundError(f"{self.folder} must hold {stems[-1].replace('%s', split)}.jsonl, found {known}")


def _question(row: Mapping[str, Any]) -> dict[str, Any]:
    positives = row["passage_id"]
    return {
        "question_id": row["data_id"],
        "question": row.get("question") or "",
        "instruction": row.get("instruction"),
        "img_path": row.get("image_path"),
        "pos_item_ids": positives if isinstance(positives, list) else [positives],
        "answers": [_answer(one) for one in row.get("answer") or ()],
    }


def _answer(given: Any) -> str:
    """Answers of Infoseek may be numbers with their range, of which ``wikidata`` is the number."""
    return str(given["wikidata"] if isinstance(given, dict) else given)


def _passage(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "passage_id": row["passage_id"],
        "passage_content": row.get("passage_text") or "",
        "img_path": row.get("passage_image_path"),
    }
