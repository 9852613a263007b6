"""Recipes as YAML files: short ones, that say what differs from the file they are based on.

::

    output: runs/table2-row05                # what all stages share
    data: {images: pictures}
    stages:                                  # without this key, the file is one stage
      stage1:
        base: [stage1.yaml, models/vit-l.yaml, models/base-v2.yaml]
      stage2: {base: stage2.yaml, steps: 6000}
      stage3: {base: stage3.yaml}

Mappings are merged key by key: the bases in order, then what all stages share, then the stage's own keys. Anything else
replaces what was there. null is a value, for settings that may be none, such as
``model.config.mask_instruction_token``; of a mapping of named things (``data.mix``, ``validation.tasks``,
``learning_rates``) it takes one out.

A base is looked for beside the file that names it, then among the shipped ones in
``preflmr/training/recipes``. The stages of a file write to ``output/stage``; ``start: previous`` is then the best
checkpoint of the stage before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from preflmr.training.recipe import TrainConfig
from preflmr.training.schema import build

SHIPPED = Path(__file__).parent / "recipes"


class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml is untyped here
    """YAML whose numbers are those of YAML 1.2: 1e-4 is one."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$"), list("-+0123456789.")
)


def read(path: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, TrainConfig]:
    """The stages of a recipe, in order, by name; a file of one stage has the file's name.

    Args:
        path: a YAML file; or the name of a shipped one, such as ``table2/row05.yaml``.
        overrides: values by dotted name, such as ``{"data.images": "pictures"}``, for every stage.

    Raises:
        FileNotFoundError: the file or a base of it is missing.
        ValueError: not YAML, an unknown key, or a value that the recipe refuses; the message names file and stage.
    """
    path = _find(str(path), Path())
    return stages_of(load_yaml(path), path, overrides)


def stages_of(
    values: Mapping[str, Any], path: Path, overrides: Mapping[str, Any] | None = None
) -> dict[str, TrainConfig]:
    """The stages of a recipe that is a part of another file.

    Args:
        values: as a file of its own would hold them.
        path: of that file, beside which bases are looked for.
        overrides: see `read`.

    Raises:
        FileNotFoundError, ValueError: as `read`.
    """
    given = _nested(overrides)
    common = merged(_bases(values, path), _without_base(values))
    stages = common.pop("stages", None)
    if stages is None:
        return {path.stem: _stage(merged(common, given), str(path))}
    if not isinstance(stages, Mapping) or not stages:
        raise ValueError(f"{path}: stages must map names to stages, got {stages!r}")
    output = given.pop("output", common.pop("output", None))
    named: dict[str, TrainConfig] = {}
    for name, own in stages.items():
        where = f"{path}, stage {name}"
        if not isinstance(own, Mapping):
            raise ValueError(f"{where}: must be a mapping, got {own!r}")
        settings = merged(merged(_bases(own, path), common), merged(_without_base(own), given))
        if output is not None:
            settings["output"] = own.get("output", f"{output}/{name}")
        if named:
            _replace_previous(settings, f"{list(named.values())[-1].output}/best")
        named[name] = _stage(settings, where)
    return named


def value(text: str) -> Any:
    """What a text means in YAML."""
    return yaml.load(text, Loader)


def _stage(settings: dict[str, Any], where: str) -> TrainConfig:
    try:
        config = build(TrainConfig, settings)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if "previous" in (config.model.start, config.model.text):
        raise ValueError(f"{where}: previous is for a stage after another one in the same file, name a checkpoint")
    return config


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a file holds.

    Raises:
        ValueError: it is not YAML, or no mapping.
    """
    try:
        values = value(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must be a mapping, got {values!r}")
    return values


def _bases(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    bases = values.get("base", [])
    found: dict[str, Any] = {}
    for name in [bases] if isinstance(bases, str) else bases:
        file = _find(name, path.parent)
        own = load_yaml(file)
        found = merged(found, merged(_bases(own, file), _without_base(own)))
    return found


def _find(name: str, beside: Path) -> Path:
    for path in (beside / name, SHIPPED / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name}: there is no such recipe, neither here nor in {SHIPPED}")


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings key by key; anything else replaces what was there."""
    both = dict(base)
    for key, value in over.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both


def _nested(overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in (overrides or {}).items():
        for part in reversed(name.split(".")):
            value = {part: value}
        nested = merged(nested, value)
    return nested


def _replace_previous(settings: dict[str, Any], previous: str) -> None:
    model = settings.get("model")
    if isinstance(model, dict):
        settings["model"] = {key: previous if value == "previous" else value for key, value in model.items()}


def _without_base(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "base"}
