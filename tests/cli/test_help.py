"""What ``--help`` prints, to the letter, and that docs/command_line.md tells of every command and option of it.

After a change ``python tests/cli/test_help.py`` writes the help anew.
"""

import os
import re
from pathlib import Path

import pytest

from lightningtune.cli.main import COMMANDS, overview
from lightningtune.cli.study_file import StudyParser
from lightningtune.cli.tune_cli import _options

FOLDER = Path(__file__).parent / "help"


def helps():
    """Return the help of the whole, and of each command, by the name of its file."""
    return {"lightningtune": overview() + "\n"} | {
        name: command.parser().format_help() for name, command in COMMANDS.items()
    }


@pytest.fixture
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("_wide")
@pytest.mark.parametrize("name", ["lightningtune", *COMMANDS])
def test_help_is_as_it_was_written_and_fits_a_terminal(name):
    found = helps()[name]
    assert max(map(len, found.splitlines())) <= 80
    # where a usage is broken into lines depends on the version of Python
    assert found.split() == (FOLDER / f"{name}.txt").read_text().split()


def test_every_file_is_the_help_of_a_command():
    assert {path.stem for path in FOLDER.iterdir()} == {"lightningtune", *COMMANDS}


DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "command_line.md").read_text()


def sections():
    """Return what stands below the heading of each command, up to the next heading of that level or above."""
    found = {}
    for part in re.split(r"^#{1,2} ", PAGE, flags=re.MULTILINE):
        for piece in re.split(r"^### ", part, flags=re.MULTILINE)[1:]:
            heading, _, text = piece.partition("\n")
            for name in re.findall(r"lightningtune (\w+)", heading):
                found[name] = found.get(name, "") + text
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_section_that_names_its_options(name):
    parser = COMMANDS[name].parser()
    # those that take a study file have the options of tune, and each its own
    text = sections()[name] + (sections()["tune"] if isinstance(parser, StudyParser) else "")
    missing = [option for option in options_of(parser) if option != "--help" and not is_named(option, text)]
    assert not missing


def options_of(parser):
    return [option for action in parser._actions for option in action.option_strings if option.startswith("--")]


def is_named(option, text):
    """Whether a text has an option in code, and not only one that begins so."""
    return re.search(rf"`[^`]*{option}(?![\w-])", text) is not None


def test_the_subcommand_of_ones_own_cli_has_no_options_but_those():
    assert {f"--{option}" for option in _options().values()} <= {*options_of(COMMANDS["tune"].parser())}


def test_the_page_tells_of_no_command_that_there_is_not():
    assert {*sections()} <= {*COMMANDS}


def test_the_exit_codes_stand_there():
    table = PAGE.partition("| exit code | means |")[2].partition("\n\n")[0]
    assert re.findall(r"`(\d+)`", table) == ["0", "1", "2", "130", "143", "129"]


if __name__ == "__main__":
    os.environ["COLUMNS"] = "80"
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.iterdir():
        path.unlink()
    for name, text in helps().items():
        (FOLDER / f"{name}.txt").write_text(text)
