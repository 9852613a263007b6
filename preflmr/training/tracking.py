"""What a run tells others: losses to a tracker, and its best model to the hub, with a model card."""

from __future__ import annotations

import dataclasses
import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from preflmr.training.recipe import TrainConfig
from preflmr.weights import hub

CARD = "README.md"


def start(accelerator: Any, config: TrainConfig) -> None:
    """Starts the tracker of a recipe. A run of Weights and Biases goes on where it stopped when it is resumed.

    Raises:
        ValueError: the tracker is not installed.
    """
    if config.tracker != "wandb":
        accelerator.init_trackers("logs")
        return
    place = str(Path(config.output).absolute())
    own = {
        "id": blake2b(place.encode(), digest_size=8).hexdigest(),
        "name": Path(place).name,
        "dir": place,
        "resume": "allow",
    }
    recipe = json.loads(json.dumps(dataclasses.asdict(config)))
    accelerator.init_trackers(config.project, config=recipe, init_kwargs={"wandb": own})


def publish(folder: Path, config: TrainConfig, summary: dict[str, Any]) -> None:
    """Writes the card of ``best`` and uploads it to the repository that the recipe names."""
    best = folder / "best"
    card = model_card(config, summary, json.loads((best / "config.json").read_text(encoding="utf-8")))
    (best / CARD).write_text(card, encoding="utf-8")
    assert config.hub is not None
    hub.upload(best, config.hub, commit_message=f"{summary['steps']:,} steps of {folder.name}")


def model_card(config: TrainConfig, summary: dict[str, Any], about: dict[str, Any]) -> str:
    """What a model was trained on, how, and how it was measured, in Markdown with the hub's metadata.

    Args:
        config: the recipe.
        summary: what `preflmr.training.train.run` returns.
        about: ``config.json`` of the model.
    """
    import yaml
    from huggingface_hub import ModelCardData

    name = str(config.hub).rpartition("/")[2]
    start = config.model.start or config.model.text
    local = start is None or Path(start).exists()
    tags = ["late-interaction", "multi-vector", "preflmr", str(about.get("model_type", ""))]
    data = ModelCardData(
        base_model=None if local else start,
        library_name="preflmr" if about.get("model_type") == "flmr" else "transformers",
        pipeline_tag="visual-document-retrieval",
        tags=[tag for tag in tags if tag],
    )
    rows = [f"| {task} | {_measure(config, task)} | {value:.4f} |" for task, value in _best(summary).items()]
    table = ["| task | measure | value |", "| --- | --- | --- |", *rows] if rows else ["It was not validated."]
    recipe = yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(config))), sort_keys=False)
    lines = [
        "---",
        data.to_yaml(),
        "---",
        f"# {name}",
        "",
        f"A late-interaction retriever, trained with preflmr for {summary['steps']:,} steps "
        f"({summary['queries']:,} queries) on {', '.join(config.data.mix)}.",
        "",
        "## Validation",
        "",
        *table,
        "",
        "## Use",
        "",
        "```python",
        "from preflmr import retrievers",
        "from preflmr.encode import encode_queries",
        "",
        f'model = retrievers.load("{config.hub}")',
        'rows = encode_queries(model, ["What is this?"])',
        "```",
        "",
        "## Recipe",
        "",
        "```yaml",
        recipe.rstrip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _best(summary: dict[str, Any]) -> dict[str, float]:
    """Values of the validation that chose the model, or else of the last."""
    found = {int(step): values for step, values in summary["validation"].items()}
    if not found:
        return {}
    return dict(found[summary["best"]["step"] if summary["best"] else max(found)])


def _measure(config: TrainConfig, task: str) -> str:
    check = config.validation.tasks.get(task)
    return (None if check is None else check.measure) or "the task's"
