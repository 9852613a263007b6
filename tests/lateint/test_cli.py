"""The command line, run in process on small collections."""

import json
import subprocess
import sys

import numpy as np
import pytest

from lateint import Analyzer, Index
from lateint.cli import main, run

DIM = 16


def unit_tokens(rng, lengths):
    tokens = rng.standard_normal((sum(lengths), DIM)).astype(np.float32)
    return tokens / np.linalg.norm(tokens, axis=1, keepdims=True)


@pytest.fixture
def saved(tmp_path):
    """Thirty documents and, as queries, the first tokens of every fifth one; saved, and in a BEIR folder."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(6, 15, 30)
    tokens = unit_tokens(rng, lengths)
    starts = np.cumsum(lengths) - lengths
    sources = range(0, 30, 5)
    np.save(tmp_path / "tokens.npy", tokens)
    np.save(tmp_path / "lengths.npy", lengths)
    np.save(tmp_path / "q_tokens.npy", np.concatenate([tokens[starts[i] : starts[i] + 4] for i in sources]))
    np.save(tmp_path / "q_lengths.npy", np.full(len(sources), 4))
    (tmp_path / "ids.json").write_text(json.dumps([f"d{i}" for i in range(30)]))
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{i}", "text": f"text {i}"}) + "\n" for i in range(30))
    )
    (tmp_path / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{i}", "text": f"text {i}"}) + "\n" for i in sources)
    )
    # One query is left without judgements: it must not count.
    (tmp_path / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in (0, 5, 25))
    )
    return tmp_path


@pytest.fixture
def index(saved):
    lateint("build", saved / "index", "--tokens", saved / "tokens.npy", "--lengths", saved / "lengths.npy", "--ids",
            saved / "ids.json")  # fmt: skip
    return saved / "index"


def lateint(*arguments):
    main([str(argument) for argument in arguments])


def precomputed(folder):
    names = {"doc-tokens": "tokens", "doc-lengths": "lengths", "query-tokens": "q_tokens", "query-lengths": "q_lengths"}
    return [part for option, name in names.items() for part in (f"--{option}", folder / f"{name}.npy")]


def test_info(capsys):
    lateint("info")
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {"lateint", "python", "scalar", "threads", "numpy", "torch"} <= lines.keys()


def test_build_says_what_it_built(saved, capsys):
    lateint("build", saved / "new", "--tokens", saved / "tokens.npy", "--lengths", saved / "lengths.npy")
    line = capsys.readouterr().out.strip()
    assert line.startswith(f"{saved / 'new'}: 30 documents, {len(np.load(saved / 'tokens.npy'))} tokens in ")


def test_stats(index, capsys):
    capsys.readouterr()
    lateint("stats", index)
    assert json.loads(capsys.readouterr().out)["bytes_per_token"]


def test_build_replaces_only_when_told(index, saved):
    again = ["build", index, "--tokens", saved / "tokens.npy", "--lengths", saved / "lengths.npy"]
    with pytest.raises(FileExistsError, match="overwrite"):
        lateint(*again)
    lateint(*again, "--overwrite")


def test_search(index, saved, capsys):
    capsys.readouterr()
    query = ["--tokens", saved / "q_tokens.npy", "--lengths", saved / "q_lengths.npy"]
    lateint("search", index, *query, "-k", 3, "--json")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["query"] for row in rows] == list(range(6))
    assert [row["hits"][0]["id"] for row in rows] == [f"d{i}" for i in range(0, 30, 5)]
    assert all(len(row["hits"]) == 3 for row in rows)
    lateint("search", index, *query, "-k", 1, "--exhaustive")
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "d0"


def test_padded_arrays(index, saved, capsys):
    """A build used to say that there were as many tokens as documents."""
    lengths, queries = np.load(saved / "lengths.npy"), np.load(saved / "q_tokens.npy").reshape(6, 4, DIM)
    padded = np.ones((30, lengths.max(), DIM), np.float32)
    padded[np.arange(lengths.max()) < lengths[:, None]] = np.load(saved / "tokens.npy")
    np.save(saved / "padded.npy", padded)
    np.save(saved / "q_padded.npy", queries)
    lateint("build", saved / "new", "--tokens", saved / "padded.npy", "--lengths", saved / "lengths.npy")
    assert f"30 documents, {lengths.sum()} tokens in" in capsys.readouterr().out
    search = ["--lengths", saved / "q_lengths.npy", "--json"]
    outputs = []
    for tokens in ("q_tokens.npy", "q_padded.npy"):
        lateint("search", saved / "new", "--tokens", saved / tokens, *search)
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("option", ["-k", "--nprobe", "--candidates", "--threads", "--device-memory"])
@pytest.mark.parametrize(
    ("value", "message"),
    [("0", "must be at least 1, got 0"), ("-3", "must be at least 1, got -3"), ("x", "must be an integer, got 'x'")],
)
def test_numbers_that_cannot_be_name_the_option(capsys, option, value, message):
    """0 used to be taken for nothing."""
    with pytest.raises(SystemExit, match="2"):
        lateint("search", "nowhere", "--tokens", "none.npy", "--lengths", "none.npy", f"{option}={value}"
                if option != "-k" else f"-k{value}")  # fmt: skip
    assert f"argument {option}: {message}" in capsys.readouterr().err


def test_messages_name_options(index, saved, monkeypatch):
    """In one line, as the user of a shell knows them."""

    def message(*arguments):
        """What a command that fails writes; see `test_the_shell_sees_one_line_and_a_status`."""
        monkeypatch.setattr(sys, "argv", ["lateint", *map(str, arguments)])
        with pytest.raises(SystemExit) as raised:
            run()
        assert isinstance(raised.value.code, str) and "\n" not in raised.value.code
        return raised.value.code

    np.save(saved / "whole.npy", np.load(saved / "tokens.npy").astype(np.int64))
    np.save(saved / "longer.npy", np.load(saved / "lengths.npy") + 1)
    np.save(saved / "empty.npy", np.append(np.load(saved / "lengths.npy"), 0))
    np.save(saved / "wide.npy", np.ones((4, 2 * DIM), np.float32))
    np.save(saved / "four.npy", [4])
    (saved / "mixed.json").write_text(json.dumps([1, "a"] * 15))
    (saved / "not.json").write_text("[1, ")
    build = {"--tokens": saved / "tokens.npy", "--lengths": saved / "lengths.npy"}
    for changes, expected in [
        ({"--tokens": saved / "whole.npy"}, "--tokens must"),
        ({"--lengths": saved / "longer.npy"}, "--lengths "),
        ({"--lengths": saved / "empty.npy"}, "document 30 has no tokens; pass --allow-empty to keep such documents"),
        ({"--ids": saved / "mixed.json"}, "--ids must be all int64 or all strings, got int, str"),
        ({"--ids": saved / "not.json"}, f"--ids: {saved / 'not.json'} is not JSON: "),
    ]:
        found = message("build", saved / "new", *(part for pair in {**build, **changes}.items() for part in pair))
        assert found.startswith(f"lateint: error: {expected}") and not (saved / "new").exists()
    found = message("build", index, *(part for pair in build.items() for part in pair))
    assert found == f"lateint: error: {index} exists already; pass --overwrite to replace it"
    found = message("search", index, "--tokens", saved / "wide.npy", "--lengths", saved / "four.npy")
    assert found.startswith(f"lateint: error: --tokens must be [Lq, {DIM}], ")
    found = message("eval", saved, "--encoder", "a:B", "--encoder-options", "[1]")
    assert found == "lateint: error: --encoder-options must be a JSON object, got '[1]'"


@pytest.mark.parametrize("place", ["missing/report.json", ""])
def test_eval_refuses_a_report_that_cannot_be_written_before_the_work(saved, monkeypatch, place):
    monkeypatch.setattr("lateint.cli.evaluating.Collection.read", lambda *_: pytest.fail("read"))
    with pytest.raises(OSError, match=r"--json: .* cannot be written"):
        lateint("eval", saved, *precomputed(saved), "--json", saved / place)


def test_a_reader_that_has_seen_enough(index, saved):
    """As in ``lateint search ... | head``."""
    np.save(saved / "many.npy", np.tile(np.load(saved / "q_tokens.npy"), (200, 1)))
    np.save(saved / "fours.npy", np.full(1200, 4))
    command = [sys.executable, "-m", "lateint", "search", str(index), "--tokens", str(saved / "many.npy"), "--lengths",
               str(saved / "fours.npy"), "--json"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as search:
        search.stdout.readline()
        search.stdout.close()
        assert search.stderr.read() == b"" and search.wait() == 141


def test_search_and_eval_on_a_device(index, saved, capsys):
    pytest.importorskip("torch")
    found = {}
    for device in ("cpu", "torch:cpu"):  # the code that a GPU runs, on the CPU
        lateint("eval", saved, *precomputed(saved), "--device", device, "--json", saved / "report.json")
        report = json.loads((saved / "report.json").read_text())
        assert report["settings"]["device"] == device
        capsys.readouterr()
        lateint("search", index, "--tokens", saved / "q_tokens.npy", "--lengths", saved / "q_lengths.npy", "--device",
                device, "--json")  # fmt: skip
        found[device] = report["quality"], capsys.readouterr().out
    assert found["cpu"] == found["torch:cpu"]


def test_build_on_a_device(index, saved, capsys):
    """The same files; and a search for which only some of the documents fit on the device."""
    pytest.importorskip("torch")
    lateint("build", saved / "other", "--tokens", saved / "tokens.npy", "--lengths", saved / "lengths.npy", "--ids",
            saved / "ids.json", "--device", "torch:cpu")  # fmt: skip
    files = sorted(path.relative_to(index) for path in index.rglob("*") if path.is_file())
    assert all((saved / "other" / name).read_bytes() == (index / name).read_bytes() for name in files)
    found = []
    for settings in ([], ["--device", "torch:cpu,torch:cpu"], ["--device", "torch:cpu", "--device-memory", 3000]):
        capsys.readouterr()
        lateint("search", index, "--tokens", saved / "q_tokens.npy", "--lengths", saved / "q_lengths.npy", *settings)
        found.append(capsys.readouterr().out)
    assert found == [found[0]] * 3
    with pytest.raises(ValueError, match="--device-memory must be left out on the cpu"):
        lateint("search", index, "--tokens", saved / "q_tokens.npy", "--lengths", saved / "q_lengths.npy",
                "--device-memory", 3000)  # fmt: skip


def test_a_device_that_is_not_there_is_refused_before_anything_is_read(saved):
    for command in (("search", saved / "nowhere", "--tokens", "none.npy", "--lengths", "none.npy"), ("eval", "none")):
        with pytest.raises(ValueError, match="device must be cpu or cuda, got 'gpu'"):
            lateint(*command, "--device", "gpu")


def test_eval_on_saved_embeddings(saved, capsys):
    lateint("eval", saved, *precomputed(saved), "--exact", "--json", saved / "report.json", "--nbits", 8)
    output = capsys.readouterr().out
    report = json.loads((saved / "report.json").read_text())
    assert (report["documents"], report["queries"], report["settings"]["nbits"]) == (30, 3, 8)
    for who in ("index", "exact"):
        assert report["quality"][who] == {"nDCG@10": 1.0, "Recall@100": 1.0, "MRR@10": 1.0, "Success@5": 1.0}
        assert who in output
    assert report["search_ms"]["p50"] <= report["search_ms"]["p95"]


def test_eval_with_an_encoder(saved, monkeypatch, capsys):
    # Words are drawn by their hash, so equal texts have equal tokens: every query finds its document.
    (saved / "hashing.py").write_text(
        "import zlib, numpy as np\n"
        "class Hashing:\n"
        "    def __init__(self, dim=8): self.dim = dim\n"
        "    def word(self, word):\n"
        "        v = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(self.dim)\n"
        "        return (v / np.linalg.norm(v)).astype('float32')\n"
        "    def encode(self, texts): return [np.stack([self.word(w) for w in t.split()]) for t in texts]\n"
    )
    monkeypatch.chdir(saved)
    lateint("eval", saved, "--encoder", "hashing:Hashing", "--encoder-options", '{"dim": 32}', "--nbits", 8)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["index", "1.0000", "1.0000", "1.0000", "1.0000"]
    with pytest.raises(ImportError, match="--encoder: module 'hashing' has no 'Other'"):
        lateint("eval", saved, "--encoder", "hashing:Other")


def test_eval_refuses_half_of_the_embeddings(saved):
    message = "give either --encoder or all of --doc-tokens, --doc-lengths, --query-tokens and --query-lengths"
    for given in ([], precomputed(saved)[:-2], [*precomputed(saved), "--encoder", "a:B"], ["--encoder", "a:B",
                  *precomputed(saved)[:2]]):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            lateint("eval", saved, *given)


def test_eval_refuses_lengths_of_another_collection(saved):
    np.save(saved / "q_lengths.npy", np.full(3, 8))
    with pytest.raises(ValueError, match="--query-lengths must hold 6 lengths as the folder does, got 3"):
        lateint("eval", saved, *precomputed(saved))


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ("hashing", "{}", "--encoder must be MODULE:CLASS, got 'hashing'"),
        ("a:B", "{", "--encoder-options must be JSON"),
    ],
)
def test_eval_refuses_what_is_no_encoder(saved, encoder, options, message):
    with pytest.raises(ValueError, match=message):
        lateint("eval", saved, "--encoder", encoder, "--encoder-options", options)


def test_unreadable_arrays_are_named(saved):
    (saved / "tokens.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"tokens.npy: not a readable .npy file"):
        lateint("build", saved / "new", "--tokens", saved / "tokens.npy", "--lengths", saved / "lengths.npy")
    assert not (saved / "new").exists()


def test_the_shell_sees_one_line_and_a_status(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lateint", "eval", "nowhere", "--encoder", "a:B"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "lateint: error: nowhere: there is no such folder\n"


def test_version(capsys):
    with pytest.raises(SystemExit):
        lateint("--version")
    assert capsys.readouterr().out.startswith("lateint 0.")


def test_parts_built_with_one_codec_are_merged(tmp_path, capsys, collection):
    np.save(tmp_path / "tokens.npy", collection.tokens)
    np.save(tmp_path / "lengths.npy", collection.lengths)
    saved = ["--tokens", str(tmp_path / "tokens.npy"), "--lengths", str(tmp_path / "lengths.npy")]
    main(["train-codec", str(tmp_path / "codec"), *saved, "--nbits", "2", "--pool", "2"])
    assert "2 bits" in capsys.readouterr().out
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps([f"{name}{i}" for i in range(len(collection))]))
        options = ["--ids", str(tmp_path / f"{name}.json"), "--codec", str(tmp_path / "codec"), "--pool", "2"]
        main(["build", str(tmp_path / name), *saved, *options, "--resume", "--max-ram", "100000000"])
    main(["merge", str(tmp_path / "both"), str(tmp_path / "a"), str(tmp_path / "b")])
    assert f"{2 * len(collection):,} documents of 2 parts" in capsys.readouterr().out
    index = Index.open(tmp_path / "both")
    assert (len(index), index.nbits, index.stats()["segments"]) == (2 * len(collection), 2, 2)
    assert index.tokens == 2 * sum(-(-n // 2) for n in collection.lengths)


def test_an_index_changes_from_a_shell(index, saved, capsys, tmp_path):
    new, path = tmp_path / "new", str(index)
    new.mkdir()
    np.save(new / "tokens.npy", unit_tokens(np.random.default_rng(3), [4, 5]))
    np.save(new / "lengths.npy", [4, 5])
    (new / "ids.json").write_text(json.dumps(["n0", "d1"]))
    files = ["--tokens", str(new / "tokens.npy"), "--lengths", str(new / "lengths.npy"), "--ids", str(new / "ids.json")]
    with pytest.raises(ValueError, match="'d1' is in the index already"):
        main(["add", path, *files])
    main(["add", path, *files, "--on-duplicate", "replace"])
    assert "31 documents" in capsys.readouterr().out
    main(["delete", path, "d2", "n0"])
    assert capsys.readouterr().out == "deleted 2; 29 documents are left\n"
    main(["compact", path, "--full"])
    assert "segments: 2 before, 1 now" in capsys.readouterr().out
    main(["snapshot", path, str(tmp_path / "copy")])
    main(["verify", str(tmp_path / "copy")])
    assert "is sound: 29 documents" in capsys.readouterr().out
    (tmp_path / "copy" / "centroids.npy").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(tmp_path / "copy")])
    assert ended.value.code == 1 and "centroids.npy" in capsys.readouterr().out


def test_fields_and_filters_from_a_shell(saved, tmp_path, capsys):
    path, documents = str(tmp_path / "fields"), tmp_path / "documents.jsonl"
    count = len(np.load(saved / "lengths.npy"))
    rows = [{"text": f"text {i}", "metadata": {"n": i, "lang": "en" if i % 2 else "de"}} for i in range(count)]
    documents.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokens = ["--tokens", str(saved / "tokens.npy"), "--lengths", str(saved / "lengths.npy")]
    main(["build", path, *tokens, "--documents", str(documents)])
    capsys.readouterr()
    main(["get", path, "1", "0", "--fields", "text,n"])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"id": 1, "text": "text 1", "metadata": {"n": 1}},
        {"id": 0, "text": "text 0", "metadata": {"n": 0}},
    ]
    for condition in (['{"n": {"$lt": 2}}'], ["n < :most", "--params", '{"most": 2}']):
        main(["get", path, "--filter", *condition])
        assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [0, 1]
        main(["search", path, *tokens, "-k", "3", "--json", "--fields", "lang", "--filter", *condition])
        for line in capsys.readouterr().out.splitlines():
            assert sorted(hit["id"] for hit in json.loads(line)["hits"]) == [0, 1]
            assert {hit["metadata"]["lang"] for hit in json.loads(line)["hits"]} == {"en", "de"}
    main(["get", path])
    assert len(capsys.readouterr().out.splitlines()) == count
    main(["delete", path, "--filter", '{"lang": "de"}'])
    assert f"deleted {(count + 1) // 2:,}" in capsys.readouterr().out
    for arguments, match in (
        (["get", path, "--filter", "{"], "--filter is not JSON"),
        (["get", path, "--filter", "n ="], "--filter cannot be read at line 1"),
        (["get", path, "--filter", '{"colour": 1}'], "no document has a field 'colour'"),
        (["get", path, "--params", "{}"], "--params goes with --filter"),
        (["get", path, "1", "--filter", '{"n": 1}'], "--filter takes the place of ids"),
        (["build", path + "2", *tokens, "--documents", str(saved / "qrels.tsv")], "--documents: line 1 of"),
    ):
        with pytest.raises(ValueError, match=match):
            main(arguments)


def test_recall_is_calibrated_and_asked_for(index, saved, capsys):
    queries = ["--tokens", saved / "q_tokens.npy", "--lengths", saved / "q_lengths.npy"]
    capsys.readouterr()
    lateint("calibrate", index, *queries, "-k", 3, 5, "-n", 4)
    printed = capsys.readouterr().out
    assert printed == f"{Index.open(index).calibration}\n"
    assert printed.startswith("4 queries\nk 3: recall  nprobe")
    lateint("search", index, *queries, "-k", 4, "--recall", 0.8, "--json")
    found = [json.loads(line)["hits"] for line in capsys.readouterr().out.splitlines()]
    assert [hits[0]["id"] for hits in found] == [f"d{i}" for i in range(0, 30, 5)]
    with pytest.raises(ValueError, match=r"--recall 0\.99 needs a calibration with at least 99 queries"):
        lateint("search", index, *queries, "--recall", 0.99)
    lateint("calibrate", index, "-k", 3)
    assert capsys.readouterr().out.startswith("30 excerpts of documents")


def test_text(saved, tmp_path, capsys):
    documents, path = tmp_path / "documents.jsonl", tmp_path / "words"
    rows = [{"text": f"the fox number {i % 7}"} if i else {"text": "a hen"} for i in range(30)]
    documents.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokens = ["--tokens", saved / "tokens.npy", "--lengths", saved / "lengths.npy"]
    queries = ["--tokens", saved / "q_tokens.npy", "--lengths", saved / "q_lengths.npy"]
    settings = '{"stopwords": "english"}'
    lateint("build", path, *tokens, "--documents", documents, "--text-search", settings)
    assert Index.open(path).analyzer == Analyzer(stopwords="english")
    capsys.readouterr()
    lateint("search", path, "--text", "the hen", "--text", "number 3", "-k", 2, "--json")
    found = [json.loads(line)["hits"] for line in capsys.readouterr().out.splitlines()]
    assert [[hit["id"] for hit in hits] for hits in found] == [[0], [3, 10]]
    texts = [part for i in range(6) for part in ("--text", f"fox {i}")]
    for options in ([], ["--alpha", 0], ["--fusion", "rrf"], ["--rerank", 5]):
        lateint("search", path, *queries, *texts, *options, "--json", "-k", 3)
        found = [[hit["id"] for hit in json.loads(line)["hits"]] for line in capsys.readouterr().out.splitlines()]
        assert len(found) == 6
        if options == ["--alpha", 0]:
            assert found[3] == [3, 10, 17]
    for options, analyzer in [
        ([], Analyzer()),
        (["--off"], None),
        (["--text-search", settings], Analyzer(stopwords="english")),
    ]:
        lateint("set-text-search", path, *options)
        assert Index.open(path).analyzer == analyzer
        assert capsys.readouterr().out == f"{analyzer or 'texts are not searched'}\n"
    rows = [{"sparse": {"fox": i, "7": 0.5}} for i in range(30)]
    documents.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lateint("build", tmp_path / "vectors", *tokens, "--documents", documents)
    lateint(
        "search", tmp_path / "vectors", "--sparse", '{"fox": 2}', "--sparse", '{"7": 1, "fox": 1}', "-k", 2, "--json"
    )
    lines = capsys.readouterr().out.splitlines()[-2:]
    found = [[(hit["id"], hit["score"]) for hit in json.loads(line)["hits"]] for line in lines]
    assert found == [[(29, 58.0), (28, 56.0)], [(29, 29.5), (28, 28.5)]]
    for wrong, message in [("fox", "must be JSON"), ("[1]", "must be a JSON object of terms and weights, got list")]:
        with pytest.raises(SystemExit):
            lateint("search", tmp_path / "vectors", "--sparse", wrong)
        assert message in capsys.readouterr().err
    for arguments, message in [
        (["search", tmp_path / "vectors", "--sparse", '{"fox": -1}'], "--sparse of query 0 must have weights from 0"),
        (["search", path, "--sparse", '{"fox": 1}'], "--sparse needs an index whose documents have sparse vectors"),
        (["search", path, *queries, "--text", "one"], "--text must be a list of 6 strings for a batch"),
        (["search", path, "--text", "one", "--alpha", 0.5], "--alpha goes with both"),
        (["search", path, *queries[:2], "--text", "one"], "--tokens needs --lengths"),
        (["search", path], "give QUERY, with --encoder, --tokens and --lengths, --text or --sparse"),
        (["build", path, *tokens, "--text-search", "english"], "--text-search must be a JSON object"),
        (["build", path, *tokens, "--text-search", "[]"], "--text-search must be a JSON object: got list"),
        (["build", path, *tokens, "--text-search", '{"stemmer": 1}'], "--text-search must have stem, stopwords"),
    ]:
        with pytest.raises(ValueError) as raised:
            lateint(*arguments)
        assert str(raised.value).startswith(message)
