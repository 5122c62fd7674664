"""Finding the command, its exit codes, and what is said of what went wrong."""

import logging
import os
import sys
from email.message import Message
from urllib.error import HTTPError

import optuna
import pytest

from lightningtune import ConfigurationError
from lightningtune.cli.main import COMMANDS, Command, main
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.studies import open_study
from lightningtune.study import storage as storages
from lightningtune.study.outage import mark


@pytest.fixture
def command():
    """Run a command line in which the command ``pause`` does something else."""

    def run(do, *line):
        class Replaced(Command):
            def parser(self):
                parser = CommandParser("pause", do, "Does something else.")
                parser.add_argument("study")
                return parser

        return main(line or ["pause", "x"], {"pause": Replaced("pause", "", "")})

    return run


def of_a_storage(error):
    mark(error)
    return error


def raising(error):
    def do(given):
        raise error

    return do


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigurationError("n_trials must be\nan integer."), 1, "lightningtune: n_trials must be an integer.\n"),
        (
            of_a_storage(ConnectionRefusedError(111, "refused")),
            1,
            "lightningtune: The storage is away: [Errno 111] refused. Try again when it is back.\n",
        ),
        (
            OSError(28, "No space left on device"),  # where no storage is
            1,
            "lightningtune: [Errno 28] No space left on device. With --debug there is the traceback.\n",
        ),
        (
            PermissionError(13, "Permission denied", "/x"),
            1,
            "lightningtune: '/x': Permission denied. With --debug there is the traceback.\n",
        ),
        (
            HTTPError("http://x/y", 404, "Not Found", Message(), None),
            1,
            "lightningtune: HTTP Error 404: Not Found. With --debug there is the traceback.\n",
        ),
        (KeyError("a"), 1, "lightningtune: KeyError: 'a'. With --debug there is the traceback.\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            of_a_storage(BrokenPipeError(32, "Broken pipe")),  # a storage's, since this process's own output is read
            1,
            "lightningtune: The storage is away: [Errno 32] Broken pipe. Try again when it is back.\n",
        ),
        (SystemExit(3), 3, ""),
        (SystemExit("that is all"), 1, "that is all\n"),
        (SystemExit(None), 0, ""),
    ],
)
def test_whatever_is_raised_is_a_code_and_a_line_at_most(command, capsys, error, code, says):
    assert command(raising(error)) == code
    assert capsys.readouterr() == ("", says)


@pytest.mark.parametrize("prints", [b"", b"something"])
def test_a_reader_who_has_had_enough_is_no_error(command, monkeypatch, prints):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)

        def do(given):
            os.write(write, prints) if prints else output.write("x" * 100_000)

        assert command(do) == 0


@pytest.mark.parametrize("where", [0, 1, 2])
def test_with_debug_anywhere_there_is_the_traceback(command, capsys, where):
    line = ["pause", "x"]
    line.insert(where, "--debug")
    assert command(raising(ConfigurationError("no")), *line) == 1
    assert "Traceback" in (said := capsys.readouterr().err)
    assert said.endswith("ConfigurationError: no\n")


def test_what_comes_after_two_dashes_is_the_commands_own(command):
    assert command(lambda given: 7 * (given.study == "--debug"), "pause", "--", "--debug") == 7


def test_alone_it_prints_its_help(capsys):
    assert main([]) == 0
    alone = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == alone
    assert all(f"\n  {name} " in alone for name in COMMANDS)


def test_every_command_has_a_parser_and_a_short_line():
    for command in COMMANDS.values():
        assert command.parser().prog == f"lightningtune {command.name}"
        assert len(command.help) <= 66


@pytest.mark.usefixtures("studies")
def test_a_storage_that_is_away_is_not_waited_for_for_long(command, monkeypatch, capsys):
    def away(*_):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(optuna.storages.JournalStorage, "get_all_studies", away)
    assert command(lambda given: open_study("digits", None, wait=0.2)) == 1
    said = capsys.readouterr().err
    assert said == "lightningtune: The storage is away: [Errno 111] Connection refused. Try again when it is back.\n"
    assert storages.log.level == logging.NOTSET, "what this process does next says when a storage is away"
