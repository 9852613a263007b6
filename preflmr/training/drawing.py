"""What a query of a batch is drawn from, and how: data sets, rows, instructions, negatives, augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from preflmr import instructions
from preflmr.data.images import Images
from preflmr.data.m2kr import Dataset, Example, load
from preflmr.training.mining import Mined
from preflmr.training.recipe import Data, Source


class View(NamedTuple):
    """A version of a picture: 0 is itself, others are augmented; the blank picture has no path."""

    dataset: int
    path: str | None
    number: int


@dataclass(frozen=True)
class Drawn:
    """One query of a batch with its documents, as text and paths; ``scores`` are the teacher's."""

    text: str
    images: list[Any]  # PIL, or with data.cache_images a View
    positive: int
    negatives: list[int]
    scores: list[float]
    example: Example
    dataset: Dataset


class KeptImages(Images):
    """Pictures that are read and decoded once, and stay in memory."""

    def __init__(self, images: Images) -> None:
        self.roots, self._sources = images.roots, images._sources
        self._kept: dict[str, Any] = {}

    def open(self, path: str) -> Any:
        """As `Images.open`."""
        if path not in self._kept:
            self._kept[path] = super().open(path)
        return self._kept[path]


def load_mix(data: Data, seed: int = 0) -> dict[str, Dataset]:
    """The data sets of ``data.mix`` by name; passages of one place are held once."""
    read: dict[tuple[Any, ...], Dataset] = {}
    found: dict[str, Dataset] = {}
    for name, source in data.mix.items():
        place = (str(source.source or data.source), source.task, source.split)
        dataset = load(
            *place,
            images=_images(source.images or data.images),
            passages=read[place].passages if place in read else None,
            limit=source.questions,
            seed=seed,
            strict=data.strict,
        )
        if data.keep_images and dataset.images is not None:
            dataset.images = KeptImages(dataset.images)
        found[name] = read[place] = dataset
    return found


def draw_negatives(
    dataset: Dataset, example: Example, mined: Mined, n: int, hard: int, rng: np.random.Generator
) -> tuple[list[int], list[float]]:
    """``n`` passages of the data set's corpus that are no positives of the question, by position, and their scores.

    ``hard`` of them, or as many as there are, come from the file of mined negatives; the others are drawn from all
    passages alike, and have score -inf.
    """
    passages = dataset.passages
    taken = {passages.positions[id] for id in example.positive_ids if id in passages.positions}
    candidates = [id for id in mined.negatives if passages.positions.get(id, -1) not in taken | {-1}]
    chosen = rng.permutation(len(candidates))[:hard]
    negatives = [passages.position(candidates[i]) for i in chosen]
    scores = [mined.negatives[candidates[i]] for i in chosen]
    taken.update(negatives)
    while len(negatives) < n:
        position = int(rng.integers(len(passages)))
        if position not in taken:
            taken.add(position)
            negatives.append(position)
            scores.append(float("-inf"))
    return negatives, scores


def augmentation(transforms: Sequence[Mapping[str, Any]]) -> Any:
    """One function of pictures: names of `torchvision.transforms.v2`, or ``Redraw``, with arguments; None from none.

    Raises:
        ValueError: there is no transform of a name, or it refuses its arguments.
    """
    if not transforms:
        return None
    from torchvision.transforms import v2

    from preflmr.training.augment import Redraw

    made = []
    for transform in transforms:
        ((name, arguments),) = transform.items()
        kind = Redraw if name == "Redraw" else getattr(v2, name, None)
        if not (isinstance(kind, type) and issubclass(kind, v2.Transform)):
            raise ValueError(f"data.augment must name transforms of torchvision.transforms.v2, got {name!r}")
        try:
            made.append(kind(**(arguments or {})))
        except TypeError as error:
            raise ValueError(f"data.augment: {name} refuses its arguments: {error}") from None
    return v2.Compose(made)


def choose_rows(n: int, size: int | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """``size`` rows of n: all of them as often as they fit, and a random choice for the rest."""
    copies, rest = divmod(n if size is None else size, n)
    return np.concatenate([np.tile(np.arange(n), copies), rng.permutation(n)[:rest]])


def check(name: str, dataset: Dataset, negatives: int) -> None:
    """Refuses a data set that cannot be trained on, by the name of the mix."""
    most = 0
    for example in dataset.examples:
        if not example.positive_ids:
            raise ValueError(f"{name}: question {example.question_id!r} has no pos_item_ids, which training needs")
        most = max(most, len(example.positive_ids))
    if len(dataset.passages) < most + negatives:
        found = f"{len(dataset.passages)} passages, of which {most} may be positives"
        raise ValueError(f"{name}: data.negatives must leave passages to draw {negatives} from, got {found}")


def choose_instruction(source: Source, example: Example, rng: np.random.Generator) -> str | None:
    """What goes before the question."""
    if source.instructions == "none":
        return None
    return example.instruction if source.instructions == "row" else instructions.choose(source.instructions, rng)


def augmented(augment: Any, opened: list[Any], rng: np.random.Generator) -> list[Any]:
    """The pictures, augmented by random numbers of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        return [augment(picture) for picture in opened]


def _images(root: str | None) -> Images | None:
    return None if root is None else Images(root)
