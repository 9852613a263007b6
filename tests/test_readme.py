"""The README's Python runs as it stands, and the commands it names exist."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    return [textwrap.dedent(block) for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize("page", ["README.md", "docs/training.md", "docs/filters.md"])
def test_python_blocks_run(page, tmp_path):
    programs = blocks((ROOT / page).read_text(encoding="utf-8"), "python")
    assert programs and (page != "README.md" or "assert" in programs[0])
    for program in programs:
        if "import torch" in program:
            pytest.importorskip("torch")
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_make_targets_exist(readme):
    named = set(re.findall(r"`?make (\w+)", readme))
    rules = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= named <= rules


def test_command_lines_parse(readme):
    from lateint.cli import _parser

    lines = [
        line.split("#")[0].split()[1:]
        for block in blocks(readme, "bash")
        for line in block.splitlines()
        if line.startswith("lateint ")
    ]
    assert {line[0] for line in lines} == {"info", "build", "search", "stats", "eval"}
    for line in lines:
        _parser().parse_args(line)


def test_local_links_lead_somewhere(readme):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", readme):
        assert (ROOT / target).exists(), target
