"""Damaged indexes, by the million."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "lateint"))  # whose `hostile` has documents and conditions
