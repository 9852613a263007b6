"""What a user does from the first line to the last, with models that stand in for those that would be downloaded."""

import importlib
import json
from importlib.util import find_spec

import numpy as np
import pytest
import stand_ins
from tiny_models import pages_model

from lateint import Index, encoders, heatmap, metrics
from lateint.cli import main


@pytest.fixture
def passages():
    """Texts, ids and metadata."""
    metadata = [{"year": 2020 + number, "lang": "en"} for number in range(len(stand_ins.PASSAGES))]
    return {"texts": list(stand_ins.PASSAGES), "ids": list(stand_ins.IDS), "metadata": metadata}


def test_passages_of_pylate(passages, monkeypatch, tmp_path):
    """Build, search, filter, rerank, add, delete, open again and serve."""
    stand_ins.install(monkeypatch, torch=False)
    model = importlib.import_module("pylate.models").ColBERT("lightonai/GTE-ModernColBERT-v1")
    index = Index.build(**passages, encoder=model, path=tmp_path / "index", progress=False)
    question = "train the immune system"
    assert index.search(question, k=1)[0].id == "vaccines"
    embedded = model.encode([question], is_query=True)
    assert list(index.search(embedded, k=3)[0]) == list(index.search(question, k=3))
    recent = index.search(question, k=4, filter={"year": {"$gte": 2022}})
    assert sorted(recent.ids) == ["light", "revenue"]
    ranked = index.rerank(question, ["tower", "vaccines"])
    assert ranked.ids.tolist() == ["vaccines", "tower"]
    each = index.search([question, question], k=1, subset=[["tower", "light"], None])
    assert each[0].ids[0] in ("tower", "light") and each[1].ids[0] == "vaccines"
    index.add(texts=["Antibodies bind to a pathogen."], ids=["new"], metadata=[{"year": 2025}])
    assert index.search("antibodies bind", k=1).texts == ["Antibodies bind to a pathogen."]
    index.delete(["vaccines"])
    again = Index.open(tmp_path / "index", encoder=model)
    assert "vaccines" not in again and sorted(again.ids) == ["light", "new", "revenue", "tower"]
    expected = list(again.search("antibodies bind", k=2))
    if any(find_spec(package) is None for package in ("fastapi", "fastapi_offline", "httpx", "msgspec", "uvicorn")):
        return
    serving = importlib.import_module("servers").serving
    remote = importlib.import_module("lateint.client").RemoteIndex
    with serving({"passages": again}) as url, remote(f"{url}/v1/indexes/passages") as client:
        assert list(client.search("antibodies bind", k=2)) == expected
        assert client.search("antibodies bind", k=4, filter={"year": {"$lt": 2022}}).ids.tolist() == ["tower"]


def test_pages_of_colpali(tmp_path):
    """Build from bfloat16 tensors, search, open again, and save a heat map as a picture."""
    torch = pytest.importorskip("torch")
    images = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    pages = [images.fromarray(rng.integers(0, 255, (3, 4), dtype=np.uint8)).convert("RGB") for _ in range(6)]
    encoder = encoders.ColPali(*pages_model(), name="tiny")
    tensors = encoder.encode_document(pages)
    assert all(isinstance(rows, torch.Tensor) and rows.dtype == torch.bfloat16 for rows in tensors)
    ids = [f"page {number}" for number in range(len(pages))]
    Index.build(tensors, tmp_path / "pages", ids=ids, encoder=encoder, progress=False)
    index = Index.open(tmp_path / "pages", encoder=encoder)
    for number, rows in enumerate(tensors):
        assert index.search(rows, k=1).ids[0] == ids[number]
    query = "revenue in 2023"
    hits = index.search(query, k=3)
    exact = [float((encoder.encode_query([query])[0].float() @ rows.float().T).max(1).values.sum()) for rows in tensors]
    np.testing.assert_allclose(hits.scores, [exact[ids.index(id)] for id in hits.ids], rtol=0.05, atol=0.3)
    similarity = index.similarity(query, hits[0].id)
    assert similarity.shape[1] == 12  # the patches of a page of three lines and four columns
    page = pages[ids.index(hits[0].id)]
    heatmap.picture(page.resize((80, 60)), (3, 4), similarity).save(tmp_path / "heat.png")
    with images.open(tmp_path / "heat.png") as saved:
        assert saved.format == "PNG" and saved.size == (80, 60)


def test_a_folder_of_beir(monkeypatch, tmp_path, capsys):
    """Evaluate, keep the run, read it back, and compare two sizes of an index with exact MaxSim."""
    monkeypatch.chdir(tmp_path)
    stand_ins.files(tmp_path)
    rng = np.random.default_rng(0)
    words = " ".join(stand_ins.PASSAGES).lower().split()
    texts = [" ".join(rng.choice(words, 9)) for _ in range(40)]
    rows = [{"_id": f"d{number}", "text": text} for number, text in enumerate(texts)]
    (tmp_path / "scifact" / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"_id": f"q{number}", "text": " ".join(texts[number].split()[:3])} for number in range(8)]
    (tmp_path / "scifact" / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = {f"q{number}": {f"d{number}": 1} for number in range(8)}
    lines = [f"{query}\t{document}\t1\n" for query, of in judged.items() for document in of]
    (tmp_path / "scifact" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    encoder = ["--encoder", "letters:Letters", "--encoder-options", '{"dim": 32}']
    quality = {}
    for nbits in ("1", "8"):
        files = ["--run", f"{nbits}.trec", "--json", f"{nbits}.json", "--per-query", f"{nbits}.tsv"]
        main(["eval", "scifact", *encoder, "--exact", "--nbits", nbits, *files])
        quality[nbits] = json.loads((tmp_path / f"{nbits}.json").read_text())["quality"]
        run: dict[str, dict[str, float]] = {}
        for line in (tmp_path / f"{nbits}.trec").read_text().splitlines():
            query, _, document, _, score, _ = line.split()
            run.setdefault(query, {})[document] = float(score)
        assert metrics.evaluate(judged, run, ["nDCG@10"])["nDCG@10"] == pytest.approx(
            quality[nbits]["index"]["nDCG@10"], abs=1e-6
        )
        assert (tmp_path / f"{nbits}.tsv").read_text().count("\n") == 1 + 2 * len(judged)
    exact = quality["8"]["exact"]["nDCG@10"]
    assert exact == quality["1"]["exact"]["nDCG@10"] > 0.5
    assert abs(quality["8"]["index"]["nDCG@10"] - exact) <= abs(quality["1"]["index"]["nDCG@10"] - exact) + 1e-9
    assert "nDCG@10" in capsys.readouterr().out
