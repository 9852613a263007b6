"""What the site needs beyond Markdown: links into the repository, and notebooks as pages."""

import json
import re
from pathlib import Path

from mkdocs.structure.files import File

OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+([^)#]+?)(?:#[^)]*)?\)")


def on_files(files, config):
    """A page for each notebook, of its cells."""
    for path in sorted(Path(config.docs_dir).glob("notebooks/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join(_markdown(cell) for cell in cells)
        name = f"notebooks/{path.stem}.md"
        files.append(
            File.generated(config, name, content=f"{text}\n\nThis page is the notebook `docs/notebooks/{path.name}`.\n")
        )
    return files


def on_page_markdown(markdown, page, config, files):
    """A link to a file of the repository, which the site does not have, becomes the file's name."""
    depth = page.file.src_uri.count("/")

    def named(match):
        if match[0].count("../") <= depth:
            return match[0]
        return match[1] if match[1].strip("`") == match[2] else f"{match[1]} (`{match[2]}`)"

    return OUTSIDE.sub(named, markdown)


def _markdown(cell):
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    printed = "".join("".join(output.get("text", [])) for output in cell["outputs"])
    return f"```python\n{source}\n```" + (f"\n\n```text\n{printed.rstrip()}\n```" if printed else "")
