"""Both studies of the paper at small scale, on the data of the demo: sizes of the encoders, and V-entropy.

    python -m benchmarks.preflmr.studies --out benchmarks/results/preflmr-studies.json [--threads 1]

Encoders of several sizes are the first layers of the demo's pretrained ones, MiniLM and ViT-S/14. Every combination is
trained for the same steps on flags and emoji, and measured on validation questions. V-entropy starts from the smallest
combination: D1 are the questions about flags; D2 are these again, and emoji. What is trained already stays, in the
working folder, and a run that was cut off goes on. ``python -m benchmarks.preflmr.page`` draws the figures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertModel
from transformers.utils import logging

from benchmarks.embeddings import write_json
from benchmarks.render import ROOT
from benchmarks.rivals.run import machine
from preflmr.evaluation.results import versions
from preflmr.model import PreFLMR
from preflmr.studies import scaling, ventropy
from preflmr.training.schema import build

TEXT, VISION = (2, 4, 6), (2, 4, 8)  # layers
IMAGE_SIZE = 56
DATA = ROOT / "examples" / "data"
FLAGS, EMOJI = str(DATA / "flags_kbvqa"), str(DATA / "emoji_captions")
RECIPE = {
    "data": {
        "homogeneous_batches": True,
        "negatives": 0,
        "augment": [{"Redraw": {"size": IMAGE_SIZE}}],
        "cache_images": True,
    },
    "loss": {"mask_positives": True},
    "learning_rates": {"text_encoder": 5e-5, "mapping": 1e-3},
    "optimizer": {"name": "adamw", "schedule": "linear", "warmup": 3, "max_norm": 1.0},
    "queries_per_step": 32,
    "batch_size": 32,
    "tracker": "none",
}
SEARCH = {"candidates": 1024, "batch_size": 64}


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
    mix = {
        "Flags": {"source": FLAGS, "split": "train", "size": 960},
        "Emoji": {"source": EMOJI, "split": "train", "size": 960},
    }
    config = {"dim": 128, "mapping_network_prefix_length": 32}
    model = {"config": config, "query_length": 32, "document_length": 128}
    axes = {
        "vision": {f"ViT {n}": {"model": {"vision": str(folder / f"vision-{n}")}} for n in VISION},
        "text": {f"MiniLM {n}": {"model": {"text": str(folder / f"text-{n}")}} for n in TEXT},
    }
    tasks = {
        "flags": {"source": FLAGS, "split": "val", "measure": "Recall@5"},
        "emoji": {"source": EMOJI, "split": "val", "measure": "Recall@5"},
        "unseen emoji": {"source": EMOJI, "split": "test_unseen", "measure": "Recall@10"},
    }
    content = {
        "output": str(folder / "scaling"),
        "recipe": {**RECIPE, "data": {**RECIPE["data"], "mix": mix}, "model": model, "steps": steps},
        "axes": axes,
        "evaluate": {name: {**task, "settings": SEARCH} for name, task in tasks.items()},
    }
    return scaling.run(build(scaling.Study, content), cpu=True)


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
        "intermediate": {**RECIPE, "data": {**RECIPE["data"], "mix": {"flags": {"source": FLAGS, "size": 960}}}},
        "every": every,
        "times": 4,
        "finetune": RECIPE,
        "steps": steps,
        "validate_every": steps // 4,
        "datasets": {
            name: {
                "train": {"source": source, "split": "train", "size": 960},
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
    add("--steps", type=int, default=60, help="of the scaling study")
    add("--every", type=int, default=10, help="steps of intermediate training between models")
    add("--finetune", type=int, default=20, help="steps of fine-tuning after each")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    encoders(folder)
    began = time.process_time()
    found = {"scaling": sizes(folder, args.steps), "ventropy": entropy(folder, args.every, args.finetune)}
    about = {"steps": args.steps, "threads": args.threads, "cpu_minutes": (time.process_time() - began) / 60}
    here = machine(sorted(os.sched_getaffinity(0)))
    write_json(args.out, {**found, **about, "machine": here, "versions": versions()})


if __name__ == "__main__":
    main()
