"""docs/serving.md does what it says: its curl lines and its Python, against a server."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from servers import Painted, serving

from lateint import Index

TEXT = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.fixture
def url(tmp_path):
    index = Index.build(
        texts=["vaccines work by training the immune system", "snow falls in winter"],
        ids=["a", "b"],
        metadata=[{"year": 2001}, {"year": 2002}],
        encoder=Painted(),
        path=tmp_path / "passages",
        progress=False,
    )
    with serving({"passages": index}) as url:
        yield url


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_its_curl_lines(url, tmp_path):
    pytest.importorskip("PIL.Image").new("RGB", (6, 4), "red").save(tmp_path / "flag.png")
    lines = re.findall(r"^curl .*$", TEXT, re.MULTILINE)
    assert len(lines) == 6
    for line in lines:
        shell = ["bash", "-c", line.replace("localhost:8080", url)]
        done = subprocess.run(shell, cwd=tmp_path, capture_output=True, check=True, timeout=30)
        answer = json.loads(done.stdout)
        assert "detail" not in answer, (line, answer)
        if "rain" in line and "filter" in line:
            assert [hit["id"] for hit in answer["hits"]] == ["new"]


def test_its_python(url, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(program.replace("http://127.0.0.1:8080", url), names := {})
    names["index"].close()
    assert capsys.readouterr().out.splitlines()[0] == "a vaccines work by training the immune system"


def test_its_options_are_there():
    from lateint_server import options

    source = Path(options.__file__).read_text()
    for option in re.findall(r"`(--[\w-]+)", TEXT):
        assert f'"{option}"' in source or option == "--encoder", option
