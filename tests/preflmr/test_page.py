"""docs/preflmr.md has the tables and figures that benchmarks/results say."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_its_results_say():
    command = [sys.executable, "-m", "benchmarks.preflmr.page", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
