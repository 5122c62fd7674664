"""The report of a real study in a real browser. What it looks like is looked at: `make pictures`."""

import os

import optuna
import pytest
from browser import find_browser, opened
from nets import Line, Points

from lightningtune import OptunaDrivenOptimizer, study_report
from lightningtune.files import load_yaml

EVIL = "<script>window.harmed = 1</script>"
CHOICES = ["relu", "</script><img src=x onerror='window.harmed = 2'>"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_browser() is None and "CI" not in os.environ, reason="there is no browser; `apt-get install chromium`"
    ),
]


def space(trial):
    return {
        "model.lr": trial.suggest_float(EVIL, 0.01, 20.0, log=True),  # above 9 the model raises
        "model.act": trial.suggest_categorical("act", CHOICES),
        "model.width": trial.suggest_int("width", 2, 8),
    }


@pytest.fixture(scope="module")
def optimizer(tmp_path_factory):
    optimizer = OptunaDrivenOptimizer(
        base_config={"trainer": {"max_epochs": 2, "accelerator": "cpu", "logger": False}},
        search_space=space,
        model_class=Line,
        datamodule_class=Points,
        sampler=optuna.samplers.RandomSampler(seed=1),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=12),
        n_trials=24,
        study_name="a small study",
        experiment_dir=tmp_path_factory.mktemp("runs"),
        max_failures=20,
        save_checkpoints=False,
        verbose=False,
    )
    optimizer.optimize()
    return optimizer


@pytest.fixture(scope="module")
def report(optimizer):
    return optimizer.directory / "report.html"


@pytest.fixture(scope="module")
def browser():
    with opened(find_browser()) as page:
        yield page


@pytest.fixture
def page(browser, report):
    browser.problems.clear()
    browser.open(report)
    return browser


def column(page, name):
    """Return what stands in a column of the rows that are shown."""
    return page.run(
        f"""(() => {{
            const at = [...document.querySelectorAll(".trials th")].findIndex((one) => one.textContent === "{name}");
            const rows = [...document.querySelectorAll(".trials tbody tr")].filter((row) => !row.hidden);
            return rows.map((row) => row.cells[at].textContent);
        }})()"""
    )


def click_head(page, name):
    page.run(f"""[...document.querySelectorAll(".trials th button")].find((b) => b.textContent === "{name}").click()""")


def show_all_figures(page):
    page.run(
        """(async () => { for (const plot of document.querySelectorAll(".plot")) {
            plot.scrollIntoView({behavior: "instant"});
            while (!plot.dataset.drawn) await new Promise((told) => setTimeout(told, 20));
        } })()"""
    )


def test_it_opens_without_a_word_and_draws_every_figure(page):
    show_all_figures(page)
    drawn = page.run("[...document.querySelectorAll('.plot')].map((plot) => plot.querySelectorAll('svg').length)")
    assert len(drawn) == 7
    assert all(drawn)
    assert page.problems == []


def test_names_that_are_code_do_nothing_and_are_shown(page):
    show_all_figures(page)
    assert page.run("typeof window.harmed") == "undefined"
    assert page.run("document.querySelectorAll('main img').length") == 0
    assert EVIL in page.texts(".trials th")
    assert EVIL.rpartition(".")[2] in " ".join(page.texts("#slices text"))
    assert EVIL.rpartition(".")[2] in " ".join(page.texts("#importances text"))
    assert page.problems == []


def test_the_table_is_sorted_both_ways_and_what_is_missing_comes_last(page):
    for direction in (1, -1):
        click_head(page, "val_loss")
        shown = column(page, "val_loss")
        values = [float(text) for text in shown if text]
        assert values == sorted(values)[::direction]
        assert "" in shown
        assert all(not text for text in shown[len(values) :])
    click_head(page, "act")
    assert column(page, "act") == sorted(column(page, "act"))


def test_the_table_is_filtered_by_words_and_by_state(page, optimizer):
    counts = optimizer.results().counts
    assert page.text("#shown") == "24 of 24"
    page.run(
        "document.getElementById('outcome').value = 'fail'; "
        "document.getElementById('outcome').dispatchEvent(new Event('input'))"
    )
    assert column(page, "state") == ["fail"] * counts["fail"]
    page.run(
        "document.getElementById('outcome').value = ''; document.getElementById('filter').value = 'COMPLETE relu'; "
        "document.getElementById('filter').dispatchEvent(new Event('input'))"
    )
    assert {*column(page, "state")} == {"complete"}
    assert {*column(page, "act")} == {"relu"}
    assert page.text("#shown") == f"{len(column(page, 'act'))} of 24"


def test_what_is_to_be_run_is_copied(page, optimizer):
    page.send("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.send("Emulation.setFocusEmulationEnabled", enabled=True)
    page.click("[data-copy=config]")
    page.wait("document.getElementById('copied').textContent")
    assert load_yaml(page.run("navigator.clipboard.readText()")) == optimizer.get_best_config()
    page.click("[data-copy=command]")
    page.wait(f"navigator.clipboard.readText().then((text) => text === {page.text('#command')!r})")


def test_links_lead_to_the_trials_folders(page, report):
    links = page.run("[...document.querySelectorAll('.trials a')].map((link) => link.getAttribute('href'))")
    assert len(links) == 24
    assert all((report.parent / link).is_dir() for link in links)


def test_it_fits_a_phone_and_the_dark(page, report):
    page.open(report, width=400, dark=True)
    show_all_figures(page)
    assert page.run("document.documentElement.scrollWidth") <= 400
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"
    page.click("#theme")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(251, 251, 249)"
    assert page.problems == []


def test_a_figure_that_plotly_cannot_draw_costs_only_itself(browser, tmp_path):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(lambda t: t.suggest_float("x", -8e307, 8e307) * 1.9 + t.suggest_float("y", 0, 1), n_trials=20)
    browser.problems.clear()
    browser.open(study_report(study, tmp_path / "huge.html"))
    show_all_figures(browser)
    assert browser.text("#contours .plot").startswith("It could not be drawn: ")
    assert "undefined" not in browser.text("#contours .plot")
    browser.click("#theme")
    browser.pdf()
    assert browser.run("document.querySelectorAll('#timeline .plot svg').length")
    assert browser.problems == []


def test_a_front_scrolls_in_its_box_and_no_number_is_torn(browser, tmp_path):
    study = optuna.create_study(directions=["minimize"] * 3, sampler=optuna.samplers.RandomSampler(seed=1))

    def objective(trial):
        x, name = trial.suggest_float("model.init_args.x", 0, 1), trial.suggest_categorical("name", ["long" * 9, None])
        return x * 1e-5, (1 - x) * 1e-3, 12345.678 * len(str(name))

    study.optimize(objective, n_trials=10)
    browser.open(study_report(study, tmp_path / "front.html"), width=400)
    assert browser.run("document.documentElement.scrollWidth") <= 400
    lines = "(cell) => { const range = document.createRange(); range.selectNodeContents(cell); "
    lines += "return range.getClientRects().length; }"
    assert set(browser.run(f"[...document.querySelectorAll('.front td.n')].map({lines})")) == {1}
    assert browser.run(
        "(() => { const box = document.querySelector('.front .scroll'); return box.scrollWidth > box.clientWidth; })()"
    )
    browser.send("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.send("Emulation.setFocusEmulationEnabled", enabled=True)
    browser.click(".front button")
    browser.wait("document.getElementById('copied').textContent")
    first = study.best_trials[0].params
    assert browser.run("navigator.clipboard.readText()") == f"study.enqueue_trial({first!r})"


def test_it_can_be_printed(page):
    page.run("document.getElementById('theme').click()")
    printed = page.pdf()
    assert printed.startswith(b"%PDF")
    assert page.run("[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)")
    assert page.problems == []
