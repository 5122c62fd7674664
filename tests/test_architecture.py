"""The floors of docs/architecture.md: a file imports only from lower floors, or from its own room."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lightningtune"
FLOORS = [
    {"_version", "errors", "contract", "streams"},
    {"files", "wording"},
    {"config"},
    {"search"},
    {"study", "training"},
    {"callback", "arguments", "preflight", "workers", "report"},
    {"host", "replay"},
    {"check"},
    {"optimizer"},
    {"cli"},
]
ROOMS = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Every module a file imports, inside functions too, but for those only type checkers see."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "import_module":
            yield from (given.value for given in node.args[:1] if isinstance(given, ast.Constant))


def name(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_imports_from_below_or_from_its_own_room(path):
    own = room(path)
    for module in imports(path):
        if module.startswith("lightningtune."):
            other = module.split(".")[1]
            assert other == own or ROOMS[other] < ROOMS[own], f"{name(path)} imports {module}"


FORBIDDEN = {
    "contract": {"torch", "lightning", "optuna", "jsonargparse", "yaml", "rich"},
    "search": {"torch", "lightning", "torchvision"},
    "config": {"torch", "lightning", "optuna"},
    "check/dry_run.py": {"optuna"},  # which trial processes import
    "study": {"torch", "lightning"},
    "report": {"torch", "lightning"},
    "cli": {"torch", "lightning"},
    "cli/tune_cli.py": {"torch"},  # which derives from LightningCLI
    "training": {"optuna"},
}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_two_sides_know_nothing_of_each_other(path):
    found = {module.split(".")[0] for module in imports(path)}
    key = name(path) if name(path) in FORBIDDEN else room(path)
    assert not found & (FORBIDDEN.get(key, set()) | {"torchvision", "pytorch_lightning"})


def test_the_contract_is_the_standard_librarys():
    found = {module.split(".")[0] for module in imports(PACKAGE / "contract.py")}
    assert found <= {*sys.stdlib_module_names, "__future__"}


def test_every_room_stands_on_a_floor():
    assert {room(path) for path in FILES} == set(ROOMS)


def module_name(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_no_file_imports_itself_through_others():
    modules = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    imported = {}
    for name, path in modules.items():
        names = {part for module in imports(path) for part in (module, module.rpartition(".")[0])}
        imported[name] = names & modules.keys() - {name, "lightningtune"}
    order = graphlib.TopologicalSorter(imported)
    order.prepare()  # raises CycleError, which names the circle
    assert order.is_active()
