"""What importing costs, and what it brings."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lightningtune


def loaded_after(code):
    """Return the top-level modules a fresh interpreter holds after running ``code``."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {module.split(".")[0] for module in out.split()}


def test_importing_the_package_imports_nothing_large():
    assert not loaded_after("import lightningtune") & {
        "torch",
        "lightning",
        "optuna",
        "jsonargparse",
        "yaml",
        "rich",
        "numpy",
    }


def test_spaces_and_the_decorator_need_no_torch():
    code = "from lightningtune import AdvancedSearchSpace, SimpleSearchSpace, tunable, ConfigurationError"
    assert not loaded_after(code) & {"torch", "lightning", "torchvision"}


@pytest.mark.parametrize("name", lightningtune.__all__)
def test_every_public_name_is_there(name):
    assert getattr(lightningtune, name) is not None
    assert name in dir(lightningtune)


def test_the_lazy_names_are_those_type_checkers_see():
    tree = ast.parse(Path(lightningtune.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == lightningtune._HOMES
    assert {*seen, "__version__"} == set(lightningtune.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Tuner'"):
        lightningtune.Tuner  # noqa: B018
