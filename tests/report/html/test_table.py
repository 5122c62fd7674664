import optuna
from reported import constrained, ours, theirs

from lightningtune.report.html.record import read_study
from lightningtune.report.html.table import columns_of, link_to, rows_of
from lightningtune.study.directory import StudyDirectory


def test_each_trial_is_a_row_with_a_cell_for_each_column(tmp_path):
    record = read_study(ours(12), StudyDirectory(tmp_path))
    columns, rows = columns_of(record), rows_of(record, tmp_path / "report.html")
    assert columns[:4] == ["trial", "state", "value", "lr"]
    assert columns[-4:] == ["epochs", "time", "memory", "note"]
    assert all(len(row.cells) == len(columns) for row in rows)
    assert [row.outcome for row in rows[:9]] == ["complete"] * 4 + ["pruned"] + ["complete"] * 3 + ["fail"]
    assert [index for index, row in enumerate(rows) if row.is_best] == [record.study.best_trial.number]
    assert rows[0].cells[-1].text == "untuned defaults"
    assert rows[8].cells[-1].text == "RuntimeError: out of luck at 8"


def test_numbers_are_sorted_as_numbers_and_shown_short(tmp_path):
    record = read_study(ours(3), StudyDirectory(tmp_path))
    row = rows_of(record, tmp_path / "report.html")[0]
    lr, act = row.cells[3], row.cells[6]
    assert float(lr.key) == record.trials[0].params["lr"]
    assert lr.is_number
    assert len(lr.text) < len(lr.whole)
    assert not act.is_number


def test_another_study_has_reports_and_no_notes(tmp_path):
    assert columns_of(read_study(theirs(), StudyDirectory(tmp_path)))[-2:] == ["reports", "time"]


def test_links_lead_from_where_the_page_lies(tmp_path):
    folder = tmp_path / "a study" / "trials" / "0007"
    folder.mkdir(parents=True)
    assert link_to(folder, tmp_path / "a study" / "report.html", is_folder=True) == "trials/0007/"
    assert link_to(folder, tmp_path / "elsewhere" / "r.html", is_folder=True) == "../a%20study/trials/0007/"
    assert link_to(folder / "error.txt", tmp_path / "report.html", is_folder=False) == ""


def test_a_choice_of_none_is_told_from_a_parameter_that_a_trial_does_not_have(tmp_path):
    study = optuna.create_study()
    choice = optuna.distributions.CategoricalDistribution([None, 3])
    study.add_trial(optuna.trial.create_trial(value=1.0, params={"x": None}, distributions={"x": choice}))
    study.add_trial(optuna.trial.create_trial(value=1.0))
    column = [row.cells[3] for row in rows_of(read_study(study, StudyDirectory(tmp_path)), tmp_path / "r.html")]
    assert [(cell.text, cell.key) for cell in column] == [("None", "None"), ("", "")]


def test_infeasible_trials_are_marked(tmp_path):
    rows = rows_of(read_study(constrained(), StudyDirectory(tmp_path)), tmp_path / "r.html")
    assert [row.cells[1].text for row in rows[:3]] == ["complete, infeasible", "complete", "complete, infeasible"]
    assert {row.outcome for row in rows} == {"complete"}
