"""What the examples of README and docs take for granted: variables, files, and models that would be downloaded.

Models are stood in for by encoders that need no weights, so that what lateint does with them runs as printed.
"""

import json
import sys
import types

import numpy as np
from letters import Letters

PASSAGES = [
    "Vaccines train the immune system to recognise a pathogen.",
    "The Eiffel Tower is a landmark of Paris.",
    "Photosynthesis turns light into sugar.",
    "Revenue in 2023 grew by a tenth.",
]
IDS = ["vaccines", "tower", "light", "revenue"]


class Model(Letters):
    """A model of any library, under any name."""

    def __init__(self, *names, **options):
        super().__init__(dim=32)

    @classmethod
    def from_pretrained(cls, *names, **options):
        """As loaders call it."""
        return cls()

    def encode(self, texts, is_query=False, **options):
        """As PyLate does."""
        return self.encode_query(texts) if is_query else self.encode_document(texts)


class Searcher(Model):
    """A PreFLMR, whose queries may have pictures."""

    def encode_query(self, texts):
        """Of questions, or pairs of questions and pictures."""
        return super().encode_query([text if isinstance(text, str) else text[0] for text in texts])


def tokens(count, length=12, dim=128, seed=0):
    """Unit vectors ``[count, length, dim]``."""
    drawn = np.random.default_rng(seed).standard_normal((count, length, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=2, keepdims=True)


def modules():
    """Packages that examples import, which are not installed or would download weights."""
    found = {
        "pylate": {}, "pylate.models": {"ColBERT": Model}, "sentence_transformers": {"MultiVectorEncoder": Model},
        "ir_datasets": {"load": lambda name: Dataset()},
    }  # fmt: skip
    made = {name: types.ModuleType(name) for name in found}
    for name, values in found.items():
        vars(made[name]).update(values)
    made["pylate"].models = made["pylate.models"]
    return made


def colpali():
    """colpali-engine, with a model that reads twelve pixels of a page."""
    from tiny_models import pages_model

    model, processor = pages_model()
    module = types.ModuleType("colpali_engine.models")
    module.ColPali = types.SimpleNamespace(from_pretrained=lambda name: model)
    module.ColPaliProcessor = types.SimpleNamespace(from_pretrained=lambda name: processor)
    return {"colpali_engine": types.ModuleType("colpali_engine"), "colpali_engine.models": module}


class Dataset:
    """A collection as ir_datasets gives it."""

    def docs_iter(self):
        """The passages."""
        return (types.SimpleNamespace(doc_id=id, text=text) for id, text in zip(IDS, PASSAGES, strict=True))

    def queries_iter(self):
        """One query."""
        return iter([types.SimpleNamespace(query_id="q", text="the immune system")])

    def qrels_dict(self):
        """What it should find."""
        return {"q": {"vaccines": 1}}


class Client:
    """A client of Qdrant with four points on two pages."""

    def scroll(self, collection, limit, offset, with_vectors):
        """Two points, and where the next are."""
        points = [types.SimpleNamespace(id=i, vector=rows.tolist()) for i, rows in enumerate(tokens(4))]
        return (points[:2], 2) if offset is None else (points[2:], None)


def variables():
    """Names that examples use without defining them."""
    import lateint

    documents = tokens(40)
    return {
        "passages": list(PASSAGES), "ids": list(IDS), "client": Client(), "encoder": Model(), "lateint": lateint,
        "documents": documents, "sample": documents, "part": documents[30:], "ids_of_part": list(range(30, 40)),
        "codec": lateint.train_codec(documents, progress=False),
        "dataset": [{"embeddings": rows} for rows in documents],
        "embeddings": documents[:2], "embeddings_of_a": documents[2:3], "others": documents[3:5],
        "index": lateint.Index.build(documents, progress=False),
        "queries": list(documents[:2]), "query_ids": ["q", "p"],
    }  # fmt: skip


def files(folder):
    """Files that examples read: embeddings, texts, a collection, parts of an index."""
    import lateint

    rows = tokens(40)
    for name in ("tokens", "a", "b"):
        np.save(folder / f"{name}.npy", rows.reshape(-1, 128))
    for name in ("lengths", "a-lengths", "b-lengths"):
        np.save(folder / f"{name}.npy", np.full(40, 12))
    np.save(folder / "queries.npy", rows[:2].reshape(-1, 128))
    np.save(folder / "query_lengths.npy", [12, 12])
    (folder / "embeddings").mkdir()
    np.save(folder / "embeddings" / "tokens.npy", rows.reshape(-1, 128))
    np.save(folder / "embeddings" / "lengths.npy", np.full(40, 12))
    (folder / "embeddings" / "ids.json").write_text(json.dumps([f"p{number}" for number in range(40)]))
    lines = [json.dumps({"_id": id, "text": text}) + "\n" for id, text in zip(IDS, PASSAGES, strict=True)]
    (folder / "passages.jsonl").write_text("".join(lines))
    for name in ("examples/data/scifact", "scifact", "nfcorpus"):
        (folder / name).mkdir(parents=True)
        (folder / name / "corpus.jsonl").write_text("".join(lines))
        (folder / name / "queries.jsonl").write_text('{"_id": "q", "text": "the immune system"}\n')
        (folder / name / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\tvaccines\t1\n")
    return lateint


def parts(folder):
    """Three parts of an index, and one that is to be changed."""
    import lateint

    codec = variables()["codec"]
    for number in range(3):
        ids = list(range(10 * number, 10 * number + 10))
        lateint.Index.build(tokens(10, seed=number), folder / f"part-{number}", ids=ids, codec=codec, progress=False)
    lateint.Index.build(tokens(3), folder / "passages", ids=["x", "y", "z"], progress=False)


def install(monkeypatch, torch):
    """Puts the modules where imports find them."""
    from lateint import encoders

    for name, module in {**modules(), **(colpali() if torch else {})}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "preflmr", types.SimpleNamespace(Encoder=Searcher))
    for name in ("MiniLM", "PyLate", "Onnx"):
        monkeypatch.setattr(encoders, name, Model)
