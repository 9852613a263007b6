"""A data set of a few coloured squares, and recipes for it, shared by the tests of training."""

import json

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 20, 20), "green": (20, 180, 30), "blue": (30, 40, 210), "grey": (120, 120, 120)}


def write_squares(folder, questions=12, passages=20):
    """A folder in M2KR's columns: squares of a colour, and passages that name it."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    names = list(COLOURS)
    rows = [{"passage_id": f"p{i}", "passage_content": f"{names[i % 4]} number {i}."} for i in range(passages)]
    (folder / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = []
    for i in range(questions):
        colour = names[i % 4]
        noise = rng.integers(0, 40, (32, 32, 3))
        Image.fromarray((noise + COLOURS[colour]).clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{i}.png")
        asked.append(
            {
                "question_id": f"q{i}",
                "question": "which colour?",
                "instruction": "find it:",
                "img_path": f"{i}.png",
                "pos_item_ids": [f"p{i % 4}", f"p{i % 4 + 4}"],
                "answers": [colour],
            }
        )
    for split in ("train", "valid"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    return folder


def recipe(output, data, **changes):
    """Settings as a YAML file has them; ``changes`` by dotted name, with ``__`` for dots."""
    settings = {
        "output": str(output),
        "model": {"start": "given"},
        "data": {"source": str(data), "negatives": 2, "mix": {"squares": {}}},
        "learning_rates": {"mapping": 1e-3, "text_encoder": 1e-4},
        "steps": 4,
        "queries_per_step": 4,
        "batch_size": 2,
        "log_every": 2,
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        place = settings
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return settings
