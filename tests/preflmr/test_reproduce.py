"""One command for the tasks of M2KR, in the hub's layout, and the tables."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from training import write_squares  # noqa: E402

from preflmr.cli import main  # noqa: E402


def test_reproduce(make_tiny, tmp_path, capsys):
    make_tiny().save_pretrained(tmp_path / "tiny")
    squares = write_squares(tmp_path / "squares", questions=4, passages=8)
    for task in ("KVQA", "OKVQA"):
        (tmp_path / f"m2kr/{task}_data").mkdir(parents=True)
        (tmp_path / f"m2kr/{task}_passages").mkdir()
        (tmp_path / f"m2kr/{task}_data/test.jsonl").write_text((squares / "valid.jsonl").read_text())
        (tmp_path / f"m2kr/{task}_passages/test_passages.jsonl").write_text((squares / "passages.jsonl").read_text())
    command = ["reproduce", str(tmp_path / "tiny"), "--data", str(tmp_path / "m2kr"), "--tasks", "KVQA", "OKVQA"]
    command += ["--images", str(squares / "images"), "--out", str(tmp_path / "runs"), "--run", "table2-row05"]
    main(command)
    out = capsys.readouterr().out
    assert "KVQA: Recall@5 " in out and "OKVQA: Pseudo Recall@5 " in out and "Table 2" in out
    summary = json.loads((tmp_path / "runs/KVQA_table2-row05.summary.json").read_text())
    assert summary["settings"]["nbits"] == 8
    main(command)
    assert "KVQA: measured before" in capsys.readouterr().out
    with pytest.raises(ValueError, match="was measured with another nbits"):
        main([*command, "--nbits", "4"])
