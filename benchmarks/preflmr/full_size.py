"""PreFLMR ViT-B at its full size, with random weights, on the CPU: saved, loaded, and encoding.

python -m benchmarks.preflmr.full_size --out benchmarks/results/preflmr-full-size.json

Weights have the published names and shapes: 633 tensors, 326.7 million parameters, one file. Loading and encoding
happen in a process of their own, so that its peak memory is theirs alone. 8 queries of 32 tokens have a picture each;
16 passages have 180 tokens. Texts are made of random tokens, so no vocabulary is needed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.rivals.measure import peak_rss
from benchmarks.rivals.run import machine

QUERIES, PASSAGES, PASSAGE_TOKENS = 8, 16, 180
TENSORS, PARAMETERS = 633, 326.7e6


def save_random(folder: Path) -> None:
    """The checkpoint: published config, published names, random numbers."""
    from preflmr.config import FLMRConfig
    from preflmr.model import PreFLMR
    from preflmr.weights.checkpoint import save

    config = FLMRConfig(
        separate_query_and_context_text_encoder=True,
        use_transformer_mapping_network=True,
        transformer_mapping_config_base="bert-base-uncased",
        transformer_mapping_num_hidden_layers=1,
        mask_punctuation=False,
    )
    with torch.device("meta"):
        model = PreFLMR(config)
    torch.manual_seed(0)
    state = {
        name: torch.ones(tensor.shape)
        if name.endswith(("norm.weight", "LayerNorm.weight", "norm1.weight", "norm2.weight"))
        else torch.randn(tensor.shape) * 0.02
        for name, tensor in model.state_dict().items()
    }
    assert len(state) == TENSORS
    assert abs(sum(tensor.numel() for tensor in state.values()) - PARAMETERS) < 0.05e6
    save(model, config, folder, state=state)


def load_and_encode(folder: Path) -> dict[str, Any]:
    """Seconds and peak memory of loading, and of encoding queries and passages twice, of which the second counts."""
    started = time.perf_counter()
    from preflmr.model import PreFLMR

    imported, imported_bytes = time.perf_counter() - started, peak_rss()
    started = time.perf_counter()
    model = PreFLMR.from_pretrained(folder)
    loaded, loaded_bytes = time.perf_counter() - started, peak_rss()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 30000, (QUERIES, 32), generator=generator)
    pixels = torch.randn(QUERIES, 3, 224, 224, generator=generator)
    passages = torch.randint(1000, 30000, (PASSAGES, PASSAGE_TOKENS), generator=generator)
    with torch.inference_mode():
        for _ in range(2):
            started = time.perf_counter()
            queries = model.query(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels)
            middle = time.perf_counter()
            documents = model.doc(input_ids=passages, attention_mask=torch.ones_like(passages))
            ended = time.perf_counter()
    rows, document_rows = queries.late_interaction_output, documents.late_interaction_output
    assert rows.shape == (QUERIES, 32 + 32 + 49, 128) and document_rows.shape == (PASSAGES, PASSAGE_TOKENS, 128)
    assert bool(torch.isfinite(rows).all()) and bool(torch.isfinite(document_rows).all())
    return {
        "import": {"seconds": round(imported, 2), "peak_rss_bytes": imported_bytes},
        "load": {"seconds": round(loaded, 2), "peak_rss_bytes": loaded_bytes},
        "encode": {
            "seconds_queries": round(middle - started, 2),
            "seconds_passages": round(ended - middle, 2),
            "peak_rss_bytes": peak_rss(),
        },
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write the numbers; printed too")
    parser.add_argument("--folder", type=Path, help="only load this checkpoint and encode, and print what it took")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        print(json.dumps(load_and_encode(arguments.folder)))
        return
    about = machine(sorted(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        save_random(Path(folder))
        size = (Path(folder) / "model.safetensors").stat().st_size
        command = [sys.executable, "-m", "benchmarks.preflmr.full_size", "--folder", folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = {
        "machine": about,
        "versions": {name: version(name) for name in ("torch", "transformers", "safetensors")},
        "model": {"name": "PreFLMR ViT-B, random weights", "tensors": TENSORS, "parameters": PARAMETERS},
        "file_bytes": size,
        "shapes": {"queries": [QUERIES, 113, 128], "passages": [PASSAGES, PASSAGE_TOKENS, 128]},
        **json.loads(done.stdout.splitlines()[-1]),
    }
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
