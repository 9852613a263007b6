"""The command line on an excerpt of real data, with a tiny random model saved to disk."""

import gzip
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from lateint.cli import main as lateint_main
from preflmr.cli import main

QUESTIONS, PASSAGES = 4, 20


@pytest.fixture(scope="module")
def checkpoint(make_tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(query_maxlen=192, doc_maxlen=512).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def flags(pytestconfig, tmp_path_factory):
    """Four questions of flags_kbvqa with their pictures, the passages that answer them, and others."""
    source, folder = pytestconfig.rootpath / "examples" / "data" / "flags_kbvqa", tmp_path_factory.mktemp("flags")
    if not source.is_dir():
        pytest.skip("the example data are not here")
    questions = rows(source / "val.jsonl")[:QUESTIONS]
    with gzip.open(source / "passages.jsonl.gz", "rt", encoding="utf-8") as file:
        passages = [json.loads(line) for line in file]
    wanted = {name for row in questions for name in row["pos_item_ids"]}
    passages.sort(key=lambda row: row["passage_id"] not in wanted)
    for row in passages:
        row["passage_content"] = row["passage_content"][:300]
    write(folder / "test.jsonl", questions)
    write(folder / "passages.jsonl", passages[:PASSAGES])
    with zipfile.ZipFile(source / "images.zip") as archive:
        for row in questions:
            archive.extract(row["img_path"], folder / "images")
    return folder


@pytest.fixture(scope="module")
def index(checkpoint, flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "index"
    preflmr("index", checkpoint, folder, "--passages", flags / "passages.jsonl", "--nbits", 8)
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def preflmr(*arguments):
    main([str(argument) for argument in arguments])


def test_help_needs_no_torch(tmp_path):
    program = "import sys; sys.modules.update(torch=None, transformers=None); from preflmr.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("train", "eval", "answer", "report", "encode", "index", "search", "convert"):
        assert f"\n    {command} " in done.stdout


def test_mistakes_end_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "preflmr", "report", "nowhere"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "preflmr: error: nowhere must hold evaluations (*.summary.json), found none\n"
    done = subprocess.run(
        [sys.executable, "-m", "preflmr", "--debug", "report", "nowhere"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_search_with_a_picture(checkpoint, flags, index, capsys):
    question = rows(flags / "test.jsonl")[0]
    preflmr("search", checkpoint, index, "--image", flags / "images" / question["img_path"],
            "--question", question["question"], "-k", 3, "--json")  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["question"] == question["question"] and found["instruction"] is None
    known = {row["passage_id"]: row["passage_content"] for row in rows(flags / "passages.jsonl")}
    scores = [one["score"] for one in found["passages"]]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert all(known[one["id"]] == one["text"] for one in found["passages"])

    preflmr("search", checkpoint, index, "--question", question["question"], "-k", 2, "--instruction", "")
    shown = capsys.readouterr().out
    assert shown.startswith("  1  ") and "\n  2  " in shown and "\n  3  " not in shown


def test_search_with_a_file_of_questions(checkpoint, flags, index, capsys):
    arguments = (
        "search",
        checkpoint,
        index,
        "--questions",
        flags / "test.jsonl",
        "--images",
        flags / "images",
        "-k",
        2,
    )
    preflmr(*arguments, "--json")
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    asked = rows(flags / "test.jsonl")
    assert [one["question_id"] for one in found] == [row["question_id"] for row in asked]
    first = asked[0]
    preflmr("search", checkpoint, index, "--image", flags / "images" / first["img_path"], "--question",
            first["question"], "--instruction", first["instruction"], "-k", 2, "--candidates", 20,
            "--json")  # fmt: skip
    alone = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in alone["passages"]] == [one["id"] for one in found[0]["passages"]]
    preflmr(*arguments)
    assert f"{first['question_id']}: {first['question']}\n  1  " in capsys.readouterr().out


def test_eval_then_report(checkpoint, flags, tmp_path, capsys):
    preflmr("eval", checkpoint, flags, "--task", "flags", "--ks", 1, 5, 20, "--exact", "--run", "tiny",
            "--index", tmp_path / "index", "--nprobe", 3, "--candidates", 20, "--out", tmp_path / "runs")  # fmt: skip
    said = capsys.readouterr().out
    assert "flags test: 4 questions, 20 passages" in said and "Recall@20 1.0000   exact 1.0000" in said
    found = json.loads((tmp_path / "runs" / "flags_tiny.json").read_text())
    assert len(found) == QUESTIONS and all(len(one["retrieved_passage"]) == 20 for one in found.values())
    settings = json.loads((tmp_path / "runs" / "flags_tiny.summary.json").read_text())["settings"]
    assert (settings["nprobe"], settings["candidates"]) == (3, 20)
    preflmr("report", tmp_path / "runs", "--tables", 2, "--out", tmp_path / "tables")
    assert "| tiny" in capsys.readouterr().out and (tmp_path / "tables" / "report.md").is_file()


def test_eval_checks_its_options_before_it_loads_anything(tmp_path):
    for option, message in (
        (("--limit", -3), "limit must be at least 1, got -3"),
        (("--ks", 0), "ks must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            preflmr("eval", "nowhere", "nothing", *option)


def test_likely_mistakes_in_the_data_may_be_let_pass(checkpoint, flags, tmp_path, capsys):
    shutil.copytree(flags, tmp_path / "flags")
    wrong = rows(flags / "test.jsonl")
    wrong[0]["pos_item_ids"].append("nobody")
    write(tmp_path / "flags" / "test.jsonl", wrong)
    again = rows(flags / "passages.jsonl")
    write(tmp_path / "flags" / "passages.jsonl", [*again, again[0]])
    command = ("eval", checkpoint, tmp_path / "flags", "--ks", 1, "--limit", 1)
    with pytest.raises(ValueError, match=r"passage .* comes twice"):
        preflmr(*command)
    preflmr(*command, "--no-strict")
    shown = capsys.readouterr()
    assert "1 passages with an id that came before\n" in shown.err and "1 positives that are no passage\n" in shown.err
    with pytest.raises(ValueError, match="comes twice"):
        preflmr("index", checkpoint, tmp_path / "i", "--passages", tmp_path / "flags" / "passages.jsonl")
    preflmr("index", checkpoint, tmp_path / "i", "--passages", tmp_path / "flags" / "passages.jsonl", "--no-strict")
    assert f"{len(again)} passages" in capsys.readouterr().out


def test_pictures_of_passages_are_indexed_with_a_published_checkpoint(checkpoint, flags, tmp_path, capsys):
    paths = [row["img_path"] for row in rows(flags / "test.jsonl")]
    pictured = [{**row, "img_path": path} for row, path in zip(rows(flags / "passages.jsonl"), paths, strict=False)]
    source = write(tmp_path / "p.jsonl", pictured)
    preflmr("index", checkpoint, tmp_path / "seen", "--passages", source, "--images", flags / "images")
    preflmr("index", checkpoint, tmp_path / "blind", "--passages", source)
    seen, blind = (int(line.split(" passages, ")[1].split()[0]) for line in capsys.readouterr().out.splitlines())
    assert seen == blind + 4 * len(pictured)  # rows of the mapping


def test_a_reader_that_has_enough_gets_no_traceback(tmp_path):
    summary = {"run": "r", "task": "mine", "split": "test", "measures": {"Recall@5": 0.5}}
    for n in range(3000):
        (tmp_path / f"{n}.summary.json").write_text(json.dumps(summary | {"run": f"run-{n}"}))
    command = f"{sys.executable} -m preflmr report {tmp_path} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout == "## Evaluations\n" and done.stderr == ""


def test_encode_writes_what_lateint_builds(checkpoint, flags, tmp_path, capsys):
    preflmr("encode", checkpoint, "--passages", flags / "passages.jsonl", "-o", tmp_path / "e", "--dtype", "bfloat16")
    assert "20 passages" in capsys.readouterr().out
    tokens, lengths = np.load(tmp_path / "e" / "tokens.npy", mmap_mode="r"), np.load(tmp_path / "e" / "lengths.npy")
    assert tokens.dtype == np.float16 and tokens.shape == (lengths.sum(), 16)
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["ids.json", "lengths.npy", "tokens.npy"]
    files = {f"--{name}": tmp_path / "e" / f"{name}.npy" for name in ("tokens", "lengths")}
    options = [str(part) for pair in files.items() for part in pair]
    lateint_main(["build", str(tmp_path / "i"), *options, "--ids", str(tmp_path / "e" / "ids.json")])
    lateint_main(["search", str(tmp_path / "i"), *options, "-k", "1", "--json"])
    hits = [json.loads(line)["hits"][0]["id"] for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert hits == [row["passage_id"] for row in rows(flags / "passages.jsonl")]


def test_convert(checkpoint, index, tmp_path, capsys):
    pytest.importorskip("open_clip")
    preflmr("convert", checkpoint, tmp_path / "converted", "--vision", "open_clip")
    config = json.loads((tmp_path / "converted" / "config.json").read_text())
    assert config["vision_config"]["implementation"] == "open_clip"
    preflmr("search", tmp_path / "converted", index, "--question", "where is it?", "-k", 1, "--json")
    assert capsys.readouterr().out.count("score") == 1  # the index takes it for the same model


def test_another_checkpoint_is_refused(make_tiny, index, tmp_path):
    make_tiny(query_maxlen=64).save_pretrained(tmp_path / "same")
    preflmr("search", tmp_path / "same", index, "--question", "a")
    other = make_tiny(query_maxlen=64)
    other.query_text_encoder_linear.weight.data *= 2
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="was indexed with another model"):
        preflmr("search", tmp_path / "other", index, "--question", "a")


def test_pictures_that_are_missing(checkpoint, index, flags, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^query 0: image 'no.png' is missing"):
        preflmr("search", checkpoint, index, "--image", "no.png", "--question", "what?")
    asked = rows(flags / "test.jsonl")
    asked[1]["img_path"] = "no.png"
    source = write(tmp_path / "asked.jsonl", asked)
    with pytest.raises(FileNotFoundError, match=r"^query 1: image 'no.png' is missing"):
        preflmr("search", checkpoint, index, "--questions", source, "--images", flags / "images")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("--image", "a.png", "--questions", "q"),
            "takes either --questions or --question and --image, got both",
        ),
        ((), "search needs --question, --image or both, or a file of --questions"),
        (("--questions", "q.jsonl"), r"q\.jsonl: there is no such file of questions"),
    ],
)
def test_search_must_be_asked_something(arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        preflmr("search", "nowhere", "nothing", *arguments)


def test_questions_without_columns(tmp_path):
    source = write(tmp_path / "q.jsonl", [{"question": "a"}, {"text": "b"}])
    with pytest.raises(ValueError, match="line 2: must have a question, an img_path, or both, found text"):
        preflmr("search", "nowhere", "nothing", "--questions", source)


def test_index_is_refused_before_the_model_is_loaded(index):
    with pytest.raises(FileExistsError, match="give --overwrite to replace it"):
        preflmr("index", "nowhere", index, "--passages", "nothing.jsonl")


def test_train_reads_overrides(monkeypatch, tmp_path, capsys):
    train = pytest.importorskip("preflmr.training.train")
    seen = []

    def run(config, *, resume):
        seen.append((config.steps, config.learning_rates["mapping"], config.output, resume))
        return {"steps": config.steps, "seconds": 1.0, "best": {"step": 5, "value": 0.5}}

    monkeypatch.setattr(train, "run", run)
    preflmr("train", "--config", "stage1.yaml", "--resume", "--set", "steps=7", "--set", "learning_rates.mapping=1e-3",
            "--set", f"output={tmp_path}", "--set", "model.start=there", "--set", "data.source=here")  # fmt: skip
    assert seen == [(7, 1e-3, str(tmp_path), True)]
    assert capsys.readouterr().out == f"stage1: 7 steps in 1 s, best at step 5; {tmp_path}/best\n"
    with pytest.raises(ValueError, match="--set must be KEY=VALUE, got 'steps'"):
        preflmr("train", "--config", "stage1.yaml", "--set", "steps")
    with pytest.raises(ValueError, match="steps must be an integer, got 'many'"):
        preflmr("train", "--config", "stage1.yaml", "--set", "steps=many", "--set", "output=here",
                "--set", "model.start=there")  # fmt: skip
