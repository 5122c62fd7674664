"""What `--help` prints, to the letter; ``python tests/cli/test_help.py`` writes it anew after a change."""

import os
from pathlib import Path

import pytest

from lightningtune.cli.main import COMMANDS, overview

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


if __name__ == "__main__":
    os.environ["COLUMNS"] = "80"
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.iterdir():
        path.unlink()
    for name, text in helps().items():
        (FOLDER / f"{name}.txt").write_text(text)
