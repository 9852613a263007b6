"""``lateint eval`` as researchers use it, and texts on the command line, with an encoder that needs no model."""

import json
import logging

import numpy as np
import pytest

from lateint.cli import main
from lateint.quality import measures

WORDS = ["red", "blue", "green", "black", "white", "grey", "pink", "brown", "gold", "rose", "sky", "sea"]
ENCODER = ["--encoder", "letters:Letters", "--encoder-options", '{"dim": 32}']


def lateint(*arguments):
    main([str(argument) for argument in arguments])


def beir(folder, seed):
    """Thirty documents of six words; queries are three of a document's words, some of them judged."""
    rng = np.random.default_rng(seed)
    texts = [" ".join([*rng.choice(WORDS, 5), f"word{seed}{i}"]) for i in range(30)]
    folder.mkdir()
    rows = [{"_id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"_id": f"q{i}", "text": " ".join(texts[i].split()[2:5])} for i in range(0, 30, 3)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"q{i}\td{i}\t2\nq{i}\td{i + 1}\t1\n" for i in range(0, 27, 3)]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [beir(tmp_path / name, seed) for seed, name in enumerate(["one", "two"])]


def test_several_collections_and_cutoffs(folders, tmp_path, capsys):
    files = [part for name in ("json", "per-query") for part in (f"--{name}", tmp_path / name)]
    lateint("eval", *folders, *ENCODER, "-k", 3, "-k", 10, "--exact", "--nbits", 8, *files)
    report = json.loads((tmp_path / "json").read_text())["collections"]
    assert [one["folder"] for one in report] == [str(folder) for folder in folders]
    names = [f"{measure}@{k}" for measure in ("nDCG", "Recall", "MRR", "Success") for k in (3, 10)]
    assert all(list(one["quality"]["index"]) == names for one in report) and report[0]["queries"] == 9
    table = (tmp_path / "per-query").read_text().splitlines()
    assert table[0].split("\t") == ["collection", "ranking", "query", *names] and len(table) == 1 + 2 * 2 * 9
    rows = [line.split("\t") for line in table[1:] if line.startswith(f"{folders[1]}\texact")]
    mean = np.mean([float(row[3]) for row in rows])
    assert mean == pytest.approx(report[1]["quality"]["exact"]["nDCG@3"], abs=1e-6)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2].startswith("mean, index") and printed[-1].startswith("mean, exact")


def test_a_run_for_trec(folders, tmp_path):
    """ir-measures reads it, and finds what we find."""
    ir_measures = pytest.importorskip("ir_measures")
    files = ["--run", tmp_path / "run.trec", "--json", tmp_path / "json"]
    lateint("eval", folders[0], *ENCODER, "--measures", "nDCG@10", "AP@100", "P@5", *files)
    first = (tmp_path / "run.trec").read_text().splitlines()[0].split()
    assert [first[1], first[3], first[5]] == ["Q0", "1", "lateint"]
    run = list(ir_measures.read_trec_run(str(tmp_path / "run.trec")))
    qrels = [ir_measures.Qrel(f"q{i}", f"d{i + j}", 2 - j) for i in range(0, 27, 3) for j in (0, 1)]
    expected = ir_measures.calc_aggregate(
        [ir_measures.parse_measure(n) for n in ("nDCG@10", "AP@100", "P@5")], qrels, run
    )
    found = json.loads((tmp_path / "json").read_text())["quality"]["index"]
    assert found == pytest.approx({str(name): value for name, value in expected.items()}, abs=1e-6)


def test_a_plot_of_quality_against_latency(folders, tmp_path):
    pytest.importorskip("matplotlib")
    files = ["--plot", tmp_path / "plot.png", "--json", tmp_path / "json"]
    lateint("eval", folders[0], *ENCODER, "--exact", *files)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    sweep = json.loads((tmp_path / "json").read_text())["sweep"]
    assert [point["nprobe"] for point in sweep] == [1, 2, 4, 8, 16, 32, 64]
    assert all(point["p50_ms"] > 0 and 0 <= point["nDCG@10"] <= 1 for point in sweep)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-k", "3", "--measures", "nDCG@3"], "give either -k or --measures"),
        (["--measures", "Beauty@3"], "measures must be known to lateint or to ir-measures, got 'Beauty@3'"),
        (["--run", "missing/run"], "--run: missing/run cannot be written"),
        (["--doc-tokens", "x.npy"], "give either --encoder or all of"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_encoded(folders, options, message):
    if "Beauty@3" in options:
        pytest.importorskip("ir_measures")
    with pytest.raises((ValueError, OSError), match=message):
        lateint("eval", folders[0], *ENCODER, *options)
    with pytest.raises(ValueError, match="--run goes with one folder"):
        lateint("eval", *folders, *ENCODER, "--run", "run.trec")


def test_a_measure_of_ir_measures_without_it_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ir_measures", None)
    with pytest.raises(ImportError, match=r"'AP@10' is none of .* and needs ir-measures: pip install ir-measures"):
        measures.check(["nDCG@10", "AP@10"])


def test_texts_in_from_a_shell(folders, capsys):
    lateint("build", "index", "--texts", folders[0] / "corpus.jsonl", *ENCODER, "--nbits", 8)
    capsys.readouterr()
    text = json.loads((folders[0] / "corpus.jsonl").read_text().splitlines()[4])["text"]
    lateint("search", "index", text, "grey sea", "-k", 2, "--json", *ENCODER)
    hits = [json.loads(line)["hits"] for line in capsys.readouterr().out.splitlines()]
    assert hits[0][0]["id"] == "d4" and hits[0][0]["text"] == text and [len(of_one) for of_one in hits] == [2, 2]
    (folders[0] / "more.txt").write_text("a new text\n\nand another\n")
    (folders[0] / "ids.json").write_text('["x", "y"]')
    lateint("add", "index", "--texts", folders[0] / "more.txt", "--ids", folders[0] / "ids.json", *ENCODER)
    assert "32 documents" in capsys.readouterr().out
    for arguments, message in [
        (["search", "index"], "give QUERY, with --encoder, --tokens and --lengths, --text or --sparse"),
        (
            ["search", "index", "text"],
            "QUERY is text, and the index was opened without its encoder 'letters': give --encoder",
        ),
        (["build", "new"], "give either --tokens with --lengths, or --texts with --encoder"),
        (["build", "new", "--texts", "x.txt"], "--texts needs --encoder"),
        (["search", "index", "text", "--encoder", "letters:Letters"], "encoder must have dim=32"),
    ]:
        with pytest.raises(ValueError, match=message):
            lateint(*arguments)


@pytest.mark.parametrize(
    ("line", "message"), [("[1]", "must be a JSON object"), ('{"text": 3}', "'text' must be"), ("{", "not JSON")]
)
def test_lines_that_are_no_texts(folders, line, message):
    (folders[0] / "bad.jsonl").write_text('{"_id": "a", "text": "b"}\n' + line + "\n")
    with pytest.raises(ValueError, match=f"bad.jsonl, line 2: {message}"):
        lateint("build", "new", "--texts", folders[0] / "bad.jsonl", *ENCODER)


def test_messages_name_options(folders):
    texts = ["build", "new", "--texts", folders[0] / "corpus.jsonl", *ENCODER]
    with pytest.raises(ValueError, match=r"^--max-ram must be at least"):
        lateint(*texts, "--max-ram", 5)
    with pytest.raises(ValueError, match=r"^--pool must be between"):
        lateint(*texts, "--pool", 0)
    lateint(*texts)
    with pytest.raises(ValueError, match="in the index already; --on-duplicate says what then"):
        lateint("add", *texts[1:])


def test_logging_and_progress(folders, caplog, capsys):
    """One line of a bar stays, whatever a build does; what is done is logged."""
    with caplog.at_level(logging.INFO, logger="lateint"):
        lateint("build", "new", "--texts", folders[0] / "corpus.jsonl", *ENCODER)
    assert [record.name for record in caplog.records] == ["lateint.index"] and "30 documents" in caplog.text
    left = [line for line in capsys.readouterr().err.split("\n") if line.strip()]
    assert len(left) == 1 and left[0].rpartition("\r")[2].startswith("encode: 100%")


def test_shares_of_words_and_tokens_are_compared(folders, tmp_path, capsys):
    settings = ["-k", 3, "--nbits", 8, "--json", tmp_path / "json"]
    lateint("eval", folders[0], *ENCODER, *settings, "--alpha", 0, "--alpha", 0.5, "--alpha", 1)
    quality = json.loads((tmp_path / "json").read_text())["quality"]
    assert list(quality) == ["index", "alpha 0", "alpha 0.5", "alpha 1"]
    assert quality["alpha 1"] == quality["index"] != quality["alpha 0"]
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[-4:]] == list(quality)
    words = json.dumps({"stopwords": WORDS})
    lateint("eval", folders[0], *ENCODER, *settings, "--alpha", 0, "--text-search", words)
    assert json.loads((tmp_path / "json").read_text())["quality"]["alpha 0"]["nDCG@3"] < quality["alpha 0"]["nDCG@3"]
    for options, message in [
        (["--alpha", 1.5], r"--alpha must be from 0 to 1, got 1\.5"),
        (["--text-search", "{}"], "--text-search goes with --alpha"),
        (["--alpha", 0.5, "--text-search", "[]"], "--text-search must be a JSON object"),
    ]:
        with pytest.raises(ValueError, match=message):
            lateint("eval", folders[0], *ENCODER, *options)
