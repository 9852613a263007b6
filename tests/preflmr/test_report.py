import csv
import json

import pytest

from preflmr.data.tasks import MEASURED, TASKS
from preflmr.evaluation import report
from preflmr.evaluation.measures import average_ranks


def summary(run, task, value, split="test", **more):
    measure = TASKS[task].measure
    return {"run": run, "task": task, "split": split, "measure": measure, "measures": {measure: value}, **more}


def table(name):
    return next(one for one in report.tables() if one["table"] == name)


def save(folder, *summaries):
    folder.mkdir(exist_ok=True)
    for n, one in enumerate(summaries):
        (folder / f"{n}.summary.json").write_text(json.dumps(one))
    return folder


def test_the_tables_are_whole():
    shapes = {one["table"]: (len(one["rows"]), len(one["columns"])) for one in report.tables()}
    assert shapes == {
        "2": (18, 9), "3": (6, 2), "4": (8, 8), "5": (5, 3), "6": (4, 3), "7": (5, 3), "10": (4, 9),
        "checkpoints": (3, 12),
    }  # fmt: skip
    for one in report.tables():
        assert all(len(row["values"]) == len(one["columns"]) for row in one["rows"])
        assert len({row["name"] for row in one["rows"]}) == len(one["rows"])
        assert all(column["task"] in TASKS for column in one["columns"])
    columns = [(column["task"], column["measure"]) for column in table("2")["columns"]]
    assert columns == [(name, TASKS[name].measure) for name in MEASURED[:6]] + [
        (name, TASKS[name].measure) for name in ("Infoseek", "EVQA", "OKVQA")
    ]
    assert table("2")["rows"][6]["values"] == [60.5, 69.2, 43.6, 78.7, 59.8, 71.8, 57.9, 70.8, 68.5]


@pytest.mark.parametrize(("name", "rows"), [("2", 13), ("4", 8)])
def test_the_papers_average_ranks_come_out_of_its_numbers(name, rows):
    ranked = {row["name"]: row for row in table(name)["rows"] if "average rank" in row}
    assert len(ranked) == rows
    for row, rank in average_ranks({name: row["values"] for name, row in ranked.items()}).items():
        assert rank == pytest.approx(ranked[row]["average rank"], abs=0.12)


def test_a_run_fills_its_cells_and_no_others():
    filled = report.fill(table("2"), [summary("table2-row05", "WIT", 0.6123), summary("other", "WIT", 0.9)])
    cells = filled.rows["5 ViT-L + Base-v2 (422M)"]
    assert (cells[0].paper, cells[0].measured) == (60.5, pytest.approx(61.23))
    assert cells[0].difference == pytest.approx(0.73) and str(cells[0]) == "60.5 / 61.2 / +0.7"
    assert all(cell.measured is None for cell in cells[1:]) and str(cells[1]) == "69.2 /  /"
    assert not any(cell.measured for name, row in filled.rows.items() if not name.startswith("5 ") for cell in row)
    assert filled.columns[0] == "WIT R@10" and filled.columns[6] == "Infoseek PR@5" and filled.columns[-1] == "A.R."


def test_one_run_may_stand_in_several_tables():
    found = [summary("table2-row03", "EVQA", 0.5)]
    assert report.fill(table("2"), found).rows["3 #2 without stage 2"][7].measured == 50.0
    assert report.fill(table("10"), found).rows["without stage 2"][7].measured == 50.0
    names = report.run_names()
    assert "PreFLMR_ViT-L" in names["2"] and "table2-row05-stage1" in names["4"] and "table7-preflmr" in names["7"]


def test_the_rank_of_a_measured_row_is_among_the_papers():
    best = [summary("table2-row01", task, 0.999) for task in MEASURED]
    rows = report.fill(table("2"), best).rows
    rank = rows["1 ViT-B + Base-v1 (207M)"][-1]
    assert (rank.paper, rank.measured, rank.difference) == (9.0, 1.0, -8.0)
    assert rows["2 ViT-B + Base-v2 (207M)"][-1].measured is None
    some = report.fill(table("2"), best[:-1]).rows
    assert some["1 ViT-B + Base-v1 (207M)"][-1].measured is None


def test_answers_of_the_generator_and_text_encoders():
    row = {"run": "table7-preflmr", "task": "OKVQA", "split": "test", "measures": {"VQA score": 0.61}}
    assert str(report.fill(table("7"), [row]).rows["RA-VQAv2 with PreFLMR"][0]) == "61.88 / 61.0 / -0.9"
    assert str(report.fill(table("7"), [row]).rows["AVIS (Infoseek: unseen entity/unseen question)"][1]) == (
        "50.70/56.40 /  /"
    )
    row = {"run": "table3-base-v1", "task": "MSMARCO", "split": "valid", "measures": {"MRR@10": 0.36, "Share@50": 0.83}}
    assert [cell.measured for cell in report.fill(table("3"), [row]).rows["Base-v1 (110M)"]] == [36.0, 83.0]


def test_other_splits_do_not_count_and_cautions_are_noted():
    filled = report.fill(table("5"), [summary("table5-all", "WIT", 0.3, split="valid")])
    assert filled.rows["all"][0].measured is None and filled.notes == []
    part = summary("table5-all", "WIT", 0.3, settings={"limit": 100})
    assert report.fill(table("5"), [part]).notes == ["table5-all on WIT: only the first 100 questions."]
    part = summary("table5-all", "WIT", 0.3, **{"left out": 7})
    assert report.fill(table("5"), [part]).notes == ["table5-all on WIT: 7 questions left out for missing pictures."]


def test_the_report_of_a_folder(tmp_path):
    exact = {"Pseudo Recall@5": 0.7}
    folder = save(
        tmp_path / "runs",
        summary("table2-row05", "EVQA", 0.69, questions=3750, passages=51472, exact=exact),
        {"run": "mine", "task": "flags", "split": "test", "measure": "Recall@5", "measures": {"Recall@5": 0.5}},
    )
    text = report.report(folder, tmp_path / "out")
    assert text == (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| table2-row05 | EVQA | test | 3,750 | 51,472 | Pseudo Recall@5 | 69.0 |  |" in text
    assert "| 70.0 | -1.0 |" in text and "| mine | flags | test |" in text
    assert [name for name in ("2", "3", "4", "5", "6", "7", "10") if f"## Table {name}." not in text] == []
    assert "70.8 / 69.0 / -1.8" in text and "Checkpoints" not in text
    lines = list(csv.DictReader((tmp_path / "out" / "report.csv").read_text(encoding="utf-8").splitlines()))
    found = [line for line in lines if line["measured"]]
    assert [(line["table"], line["column"], line["paper"], line["difference"]) for line in found] == [
        ("2", "E-VQA PR@5", "70.8", "-1.80")
    ]
    loaded = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    cell = loaded[0]["rows"][6]["cells"]["E-VQA PR@5"]
    assert cell["paper"] == 70.8 and cell["measured"] == pytest.approx(69.0)
    assert report.report(folder, only=["6"]).count("## Table") == 1
    save(tmp_path / "runs", summary("PreFLMR_ViT-B", "WIT", 0.43))
    assert "Checkpoints" in report.report(folder)


def test_markdown_tables_are_rectangular(tmp_path):
    text = report.report(save(tmp_path / "runs", summary("table2-row05", "EVQA", 0.69)))
    blocks = [[line for line in block.splitlines() if line.startswith("|")] for block in text.split("\n## ")]
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold evaluations \(\*\.summary\.json\), found none"):
        report.read(tmp_path)
    save(tmp_path / "a", summary("x", "WIT", 0.1), summary("x", "WIT", 0.2))
    with pytest.raises(ValueError, match=r"run 'x' was evaluated twice on WIT test: .*0\.summary.* and .*1\.summary"):
        report.read(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.summary.json").write_text('{"run": 1}')
    with pytest.raises(ValueError, match=r"x\.summary\.json: not the summary of an evaluation: KeyError\('task'\)"):
        report.read(tmp_path / "b")
    save(tmp_path / "c", summary("x", "WIT", 0.1))
    with pytest.raises(ValueError, match=r"only must name tables, some of 2, 3, .*, got '9'"):
        report.report(tmp_path / "c", only=["9"])


def test_table_3_is_measured_on_dev(tmp_path):
    def evaluated(split, value):
        summary = {"run": "table3-base-v1", "task": "MSMARCO", "split": split, "measures": {"MRR@10": value}}
        (tmp_path / f"{split}.summary.json").write_text(json.dumps(summary))

    evaluated("test", 0.1)
    evaluated("valid", 0.36)  # what --split dev is called
    (table,) = [one for one in report.tables() if one["table"] == "3"]
    assert report.fill(table, report.read(tmp_path)).rows["Base-v1 (110M)"][0].measured == pytest.approx(36.0)
