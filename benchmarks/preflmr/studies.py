"""Both studies of the paper at small scale, on the data of the demo: sizes of the encoders, and V-entropy.

    python -m benchmarks.preflmr.studies --out benchmarks/results/preflmr-studies.json [--only ventropy]

Encoders of several sizes are the first layers of the demo's pretrained ones, MiniLM and ViT-S/14. Every combination is
trained for the same steps on emoji and their captions, and measured on emoji. V-entropy starts from the smallest
combination: D1 are emoji; D2 are these again, and questions about flags. Only mappings learn, so that each picture and
each passage is encoded once. What is trained already stays, in the working folder, and a run that was cut off goes on.
``python -m benchmarks.preflmr.page`` draws the figures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertModel
from transformers.utils import logging

from benchmarks.embeddings import read_json, write_json
from benchmarks.render import ROOT
from benchmarks.rivals.run import machine
from preflmr.evaluation.results import versions
from preflmr.model import PreFLMR
from preflmr.studies import scaling, ventropy
from preflmr.training.schema import build

TEXT, VISION = (2, 6), (2, 4, 8)  # layers
IMAGE_SIZE = 56
DATA = ROOT / "examples" / "data"
FLAGS, EMOJI = str(DATA / "flags_kbvqa"), str(DATA / "emoji_captions")
RECIPE = {
    "data": {
        "homogeneous_batches": True,
        "negatives": 0,
        "augment": [{"Redraw": {"size": IMAGE_SIZE}}],
        "cache_images": True,
        "cache_documents": True,
    },
    "loss": {"mask_positives": True},
    "learning_rates": {"mapping": 1e-3},
    "optimizer": {"name": "adamw", "schedule": "linear", "warmup": 10, "max_norm": 1.0},
    "queries_per_step": 48,
    "batch_size": 48,
    "tracker": "none",
}
SEARCH = {"method": "exact", "batch_size": 64}


def encoders(folder: Path) -> None:
    """The first layers of both, each in a folder of its own."""
    sys.path.insert(0, str(ROOT / "examples"))
    import vision
    from encoder import model_folder

    for layers in TEXT:
        if not (place := folder / f"text-{layers}").exists():
            model = BertModel.from_pretrained(model_folder())
            del model.encoder.layer[layers:]
            model.config.num_hidden_layers = layers
            AutoTokenizer.from_pretrained(model_folder()).save_pretrained(place)
            model.save_pretrained(place)
    for layers in VISION:
        if not (place := folder / f"vision-{layers}").exists():
            standardised(vision.encoder(IMAGE_SIZE, layers)).save_pretrained(place)


@torch.no_grad()
def standardised(encoder: Any) -> Any:
    """The encoder with states of spread 1, from which a random mapping learns faster: each layer adds to what it is
    given, by its norm alone, so all of it may be multiplied."""
    network = getattr(encoder, "vision_model", encoder)  # before transformers 5, one level deeper
    torch.manual_seed(0)
    pixels = torch.nn.functional.interpolate(torch.randn(64, 3, 7, 7), 2 * (IMAGE_SIZE,), mode="bilinear")
    factor = 1 / encoder(pixels).last_hidden_state[:, 0].std(0).mean()
    added = [module for layer in network.encoder.layers for module in (layer.self_attn.out_proj, layer.mlp.fc2)]
    for module in (network.pre_layrnorm, *added):
        module.weight *= factor
        module.bias *= factor
    return encoder


def sizes(folder: Path, steps: int) -> dict[str, Any]:
    """The scaling study."""
    mix = {"Emoji": {"source": EMOJI, "split": "train"}}
    config = {"dim": 128, "mapping_network_prefix_length": 32}
    model = {"config": config, "query_length": 20, "document_length": 128}
    axes = {
        "vision": {f"ViT {n}": {"model": {"vision": str(folder / f"vision-{n}")}} for n in VISION},
        "text": {f"MiniLM {n}": {"model": {"text": str(folder / f"text-{n}")}} for n in TEXT},
    }
    tasks = {
        "validation": {"source": EMOJI, "split": "val", "measure": "Recall@5"},
        "test": {"source": EMOJI, "split": "test", "measure": "Recall@5"},
        "unseen": {"source": EMOJI, "split": "test_unseen", "measure": "Recall@5"},
    }
    content = {
        "output": str(folder / "scaling"),
        "recipe": {**RECIPE, "data": {**RECIPE["data"], "mix": mix}, "model": model, "steps": steps},
        "axes": axes,
        "evaluate": {name: {**task, "settings": SEARCH} for name, task in tasks.items()},
    }
    return {**scaling.run(build(scaling.Study, content), cpu=True), "steps": steps}


def entropy(folder: Path, every: int, steps: int) -> dict[str, Any]:
    """The study of intermediate pre-training."""
    start = folder / "start"
    if not start.exists():
        torch.manual_seed(0)
        places = (str(folder / f"{kind}-{layers[0]}") for kind, layers in (("text", TEXT), ("vision", VISION)))
        model = PreFLMR.from_encoders(
            *places, query_maxlen=32, doc_maxlen=128, dim=128, mapping_network_prefix_length=32
        )
        model.save_pretrained(start)
    content = {
        "output": str(folder / "ventropy"),
        "start": str(start),
        "intermediate": {**RECIPE, "data": {**RECIPE["data"], "mix": {"emoji": {"source": EMOJI}}}},
        "every": every,
        "times": 4,
        "finetune": RECIPE,
        "steps": steps,
        "validate_every": max(steps // 4, 1),
        "datasets": {
            name: {
                "train": {"source": source, "split": "train"},
                "valid": {"source": source, "split": "val", "questions": 192},
            }
            for name, source in (("flags", FLAGS), ("emoji", EMOJI))
        },
    }
    return ventropy.run(build(ventropy.Study, content), cpu=True)


def main() -> None:
    """Runs both studies, or goes on with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True)
    add("--folder", type=Path, default=Path(".studies"), help="where models go")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--steps", type=int, default=200, help="of the scaling study")
    add("--every", type=int, default=20, help="steps of intermediate training between models")
    add("--finetune", type=int, default=12, help="steps of fine-tuning after each")
    add("--only", default="ventropy,scaling", help="names of studies, separated by a comma")
    args = parser.parse_args()
    if unknown := set(args.only.split(",")) - {"ventropy", "scaling"}:
        parser.error(f"--only must name ventropy, scaling or both, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    encoders(folder)
    runs = {
        "ventropy": partial(entropy, folder, args.every, args.finetune),
        "scaling": partial(sizes, folder, args.steps),
    }
    result = read_json(args.out) if args.out.is_file() else {}
    for name in args.only.split(","):
        began = time.process_time()
        found = runs[name]()
        about = {"threads": args.threads, "cpu_minutes": (time.process_time() - began) / 60}
        here = machine(sorted(os.sched_getaffinity(0)))
        result[name] = {**found, **about, "machine": here, "versions": versions()}
        write_json(args.out, result)


if __name__ == "__main__":
    main()
