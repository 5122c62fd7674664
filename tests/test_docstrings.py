"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest
from nets import Line, Points

import lightningtune
from lightningtune import OptunaDrivenOptimizer

MODULES = [info.name for info in pkgutil.walk_packages(lightningtune.__path__, "lightningtune.")]


@pytest.fixture
def names(request, tmp_path):
    """What the examples of a module take for granted: those of the optimizer have a small study."""
    if request.node.callspec.params["name"] != "lightningtune.optimizer":
        return {}
    trainer = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    optimizer = OptunaDrivenOptimizer(
        {"trainer": {**trainer, "logger": False}},
        {"lr": ("loguniform", 1e-3, 1.0)},
        Line,
        Points,
        n_trials=2,
        experiment_dir=tmp_path,
        verbose=False,
        seed=0,
    )
    optimizer.optimize()
    return {"optimizer": optimizer}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, names):
    result = doctest.testmod(importlib.import_module(name), extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    examples = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(examples) >= 15
