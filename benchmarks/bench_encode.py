"""Encoding passages and questions with pictures: a tiny model, and one whose text encoder has MiniLM's size.

pytest benchmarks/bench_encode.py --benchmark-group-by=group

Weights are random: only their number matters here. Texts are words of the example data. Passages are encoded as a
stream does it; ``unsorted`` is what that saves: batches in the order given, padded to the longest. One thread.
"""

import gzip
import json
import platform
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers  # noqa: E402
from PIL import Image  # noqa: E402

from preflmr import encode  # noqa: E402
from preflmr.config import FLMRConfig  # noqa: E402
from preflmr.encode import encode_documents, encode_queries  # noqa: E402
from preflmr.model import PreFLMR  # noqa: E402
from preflmr.model.tokenization import FLMRDocumentTokenizer, FLMRQueryTokenizer  # noqa: E402

DATA = Path(__file__).parent.parent / "examples" / "data" / "flags_kbvqa" / "passages.jsonl.gz"
SPECIAL = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES = {  # hidden, layers, heads; passages and queries measured
    "tiny": (64, 2, 2, 512, 256),
    "minilm": (384, 6, 12, 48, 32),
}
VISION = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 3}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The passages of the example data, and a vocabulary of their words."""
    with gzip.open(DATA, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["passage_content"] for line in file]
    known = sorted({word.lower() for text in texts for word in text.split() if word.isalpha()})
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, *".,:;()-'?", *known]) + "\n", encoding="utf-8")
    return texts, path


@pytest.fixture(scope="module", params=SIZES)
def sized(request, words):
    """A model, and how many passages and queries are measured with it."""
    hidden, layers, heads, passages, queries = SIZES[request.param]
    size = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_attention_heads": heads}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = FLMRConfig(
            text_config={**size, "num_hidden_layers": layers},
            vision_config={**VISION, "image_size": 96, "patch_size": 16},
            use_transformer_mapping_network=True,
            transformer_mapping_config_base=size,
            transformer_mapping_num_hidden_layers=1,
            mask_instruction_token=":",
        )
        model = PreFLMR(config, FLMRQueryTokenizer(words[1]), FLMRDocumentTokenizer(words[1])).eval()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield request.param, model, words[0][:passages], words[0][:queries]
    torch.set_num_threads(before)


def measured(benchmark, group, count, unit, function):
    result = benchmark.pedantic(function, rounds=3, warmup_rounds=1)
    benchmark.group = group
    benchmark.extra_info.update(
        {
            "count": count,
            f"{unit}_per_second": count / benchmark.stats.stats.median if benchmark.stats else None,
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
    )
    return result


@pytest.mark.parametrize("batch_tokens", [2048, 8192])
def bench_passages(benchmark, sized, batch_tokens, monkeypatch):
    size, model, passages, _ = sized
    monkeypatch.setitem(encode.BUDGET, "cpu", batch_tokens // 64)

    def run():
        return sum(len(lengths) for _, lengths in encode_documents(model, passages, progress=False))

    assert measured(benchmark, f"passages-{size}", len(passages), "passages", run) == len(passages)


def bench_passages_unsorted(benchmark, sized):
    size, model, passages, _ = sized

    def run():
        count = 0
        with torch.inference_mode():
            for start in range(0, len(passages), 16):
                inputs = model.document_tokenizer(passages[start : start + 16], padding="longest")
                output = model.doc(**inputs)
                rows = output.late_interaction_output[output.mask].numpy()
                count += len(output.mask) if len(rows) else 0
        return count

    assert measured(benchmark, f"passages-{size}", len(passages), "passages", run) == len(passages)


@pytest.mark.parametrize("pictures", [False, True], ids=["words", "words-and-picture"])
@pytest.mark.filterwarnings("ignore:.*were cut")
def bench_queries(benchmark, sized, pictures):
    size, model, _, texts = sized
    rng = np.random.default_rng(0)
    shown = [Image.fromarray(rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)) for _ in texts] if pictures else None

    def run():
        return encode_queries(model, texts, shown, progress=False)

    assert len(measured(benchmark, f"queries-{size}", len(texts), "queries", run)) == len(texts)
