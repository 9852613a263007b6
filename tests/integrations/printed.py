"""What the documentation prints, for tests that run it beside the packages that it imports."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def program(page, word):
    """The one block of Python on a page that holds a word."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if word in block]
    return found
