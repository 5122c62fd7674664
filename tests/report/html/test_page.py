import dataclasses
import datetime
import gzip
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
from reported import DISTRIBUTIONS, START, ours, theirs

from lightningtune.files import dump_yaml, load_yaml
from lightningtune.report.html.page import pack_plotly, render
from lightningtune.report.html.results import drawable_results
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.reporter import SEED

EVIL = '</script><script>alert("1")</script>'


class Reader(HTMLParser):
    """Reads a page: its elements, its words, and what each script holds."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self.scripts, self.targets = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        (self.scripts if self.tags[-1:] == ["script"] else self.words).append(data.strip())

    @property
    def text(self):
        return " ".join(filter(None, self.words))


def page(study, folder=Path("nowhere")):
    directory = StudyDirectory(folder)
    return render(
        drawable_results(study, directory), directory, folder / "report.html", START + datetime.timedelta(hours=1)
    )


@pytest.fixture(scope="module")
def reader():
    return Reader(page(ours(40)))


def test_the_answer_comes_first(reader):
    assert reader.text.index("Best value") < reader.text.index("History")
    assert "better than the untuned defaults" in reader.text
    assert "24 complete" in reader.text or "complete" in reader.text


def test_the_parameters_of_the_best_stand_beside_their_defaults():
    study = optuna.create_study()
    kinds = {name: optuna.distributions.CategoricalDistribution([None, 1, 2]) for name in "abc"}
    for value, params in ((1.0, {"a": None, "b": 1}), (0.5, {"a": 2, "b": 1, "c": None})):
        own = {name: kinds[name] for name in params}
        study.add_trial(optuna.trial.create_trial(value=value, params=params, distributions=own))
    results = drawable_results(study, StudyDirectory(Path("nowhere")))
    trials = tuple(dataclasses.replace(trial, is_baseline=trial.number == 0) for trial in results.trials)
    directory = StudyDirectory(Path("nowhere"))
    written = render(dataclasses.replace(results, trials=trials), directory, Path("nowhere/report.html"), START)
    rows = re.findall(r'<td class="n( changed)?" title="(\w+)">\2</td>\s*<td class="n dim">(\w*)</td>', written)
    assert rows == [(" changed", "2", "None"), ("", "1", "1"), ("", "None", "")]


def test_without_a_config_the_parameters_are_all_that_can_be_copied():
    study = theirs()
    copied = re.search(r'<pre id="config">(.*?)</pre>', page(study), re.DOTALL)
    assert load_yaml(copied[1]) == study.best_params


def test_every_section_is_there(reader):
    for title in (
        "History",
        "Learning curves",
        "Importances",
        "Parallel coordinates",
        "Slices",
        "Contours",
        "Timeline",
        "Cost",
        "Failures",
        "Trials",
        "Environment",
    ):
        assert title in reader.words, title
    assert "RuntimeError: out of luck at 8" in reader.text
    assert "2.15.0" in reader.words
    assert "epochs saved by pruning" in reader.text


def test_nothing_is_asked_of_a_network(reader):
    assert all(target.startswith(("#", "data:")) for target in reader.targets), reader.targets
    assert "link" in reader.tags


def test_plotly_comes_along_packed():
    assert b"plotly.js v" in gzip.decompress(b64decode(pack_plotly()))[:300]
    assert len(pack_plotly()) < 2.2e6


def test_names_and_values_of_users_are_only_shown():
    distributions = {
        EVIL: optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
        "width": optuna.distributions.CategoricalDistribution([EVIL, "<img src=x onerror=alert(2)>"]),
    }
    study = ours(20, distributions=distributions)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names([EVIL])
    written = page(study)
    assert 'alert("1")' not in re.sub(r"&lt;/script&gt;&lt;script&gt;alert\(&#34;1&#34;\)", "", written)
    assert "<img" not in written
    reader = Reader(written)
    assert reader.tags.count("script") == Reader(page(ours(20))).tags.count("script")
    assert EVIL in reader.words


def test_a_page_of_many_trials_stays_below_five_megabytes_and_says_what_it_leaves_out():
    written = page(ours(1500, epochs=25))
    assert len(written.encode()) < 5e6
    assert written.count("<tr data-outcome") == 1000
    assert "show 1,000 of the 1,500 trials: the best, and a sample of the others." in written
    assert 'id="sample"' not in page(ours(3))


def test_a_study_of_ours_links_to_its_folders(tmp_path):
    directory = StudyDirectory(tmp_path / "a study")
    study = ours(12)
    best = study.best_trial.number
    directory.begin(directory.trial(best), {"model": {"lr": 0.5}})
    directory.write_error(8, "Traceback")
    directory.write_definition({"sampler": "GPSampler", "seed": 7, "score": "best"})
    reader = Reader(page(study, directory.root))
    assert f"trials/{best:04d}/" in reader.targets
    assert "trials/0008/error.txt" in reader.targets
    assert "GPSampler" in reader.words
    assert dump_yaml({"model": {"lr": 0.5}}).strip() in reader.words
    assert f"optimizer.refit(number={best}, seeds=[1, 2, 3])" in reader.words


def test_another_study_has_no_baseline_and_no_folders(tmp_path):
    (tmp_path / "trials" / "0000").mkdir(parents=True)
    reader = Reader(page(theirs(), tmp_path))
    assert "untuned defaults" not in reader.text
    assert "waited for its process" not in reader.text
    assert not [target for target in reader.targets if target.startswith("trials/")]
    assert "reports" in reader.words
    assert "study.enqueue_trial(" in reader.text


def test_several_objectives_have_their_front():
    reader = Reader(page(theirs(["minimize", "minimize"])))
    assert "Pareto front" in reader.words
    assert "History of value_1" in reader.words
    assert re.search(r"\d+ on the Pareto front", reader.text)


def test_each_trial_of_a_front_has_its_command_and_its_folder(tmp_path):
    directory = StudyDirectory(tmp_path)
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.add_trials([optuna.trial.create_trial(values=values) for values in ((1.0, 2.0), (2.0, 2.0), (2.0, 1.0))])
    assert 'data-text="study.enqueue_trial({})"' in page(study)
    assert page(study).count('id="copied"') == 1
    study.set_user_attr(SEED, 1)
    for number in range(3):
        directory.begin(directory.trial(number), {"model": {"lr": 0.5}})
    written = page(study, tmp_path)
    assert "refit(number=1," not in written
    study.add_trial(optuna.trial.create_trial(values=(0.0, 0.0)))
    assert page(study).count('id="copied"') == 1, "of a front of one trial there is the config to copy, too"
    for number in (0, 2):
        assert f'data-text="optimizer.refit(number={number}, seeds=[1, 2, 3])"' in written
        assert f'<th scope="row"><a href="trials/{number:04d}/">{number}</a>' in written


@pytest.mark.parametrize(("study", "is_better"), [(ours(40), True), (ours(1), False), (optuna.create_study(), False)])
def test_only_what_is_better_than_the_defaults_is_green(study, is_better):
    written = page(study)
    assert 'class="verdict' in written
    assert ('class="verdict better"' in written) == is_better


def test_where_every_completed_trial_violates_a_constraint_none_is_best():
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=1.0, system_attrs={"constraints": [1.0]}))
    text = Reader(page(study)).text
    assert "There is no best trial: each that is complete violates a constraint. Trials: 1 complete." in text


@pytest.mark.parametrize("running", [0, 1])
def test_a_study_that_has_nothing_says_so(running):
    study = optuna.create_study(study_name="new")
    for _ in range(running):
        study.ask()
    reader = Reader(page(study))
    assert ("No trial completed." if running else "No trial has been run.") in reader.text
    assert ("1 running" in reader.text) == bool(running)


def test_one_trial_is_enough():
    distributions = {"lr": DISTRIBUTIONS["lr"]}
    assert "These are the untuned defaults" in Reader(page(ours(1, distributions=distributions))).text
