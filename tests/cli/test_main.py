"""Finding the command, its exit codes, and what is said of what went wrong and of wrong command lines."""

import logging
import os
import re
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


SEE = r"See 'lightningtune {0} --help'\."
WRONG = [
    ("stauts digits", 2, r"unknown command 'stauts'\. Did you mean 'status'\? See 'lightningtune --help'\."),
    ("--verison", 2, r"unknown option '--verison'\. Did you mean '--version'\?"),
    ("validate", 2, r"unknown command 'validate'\. See"),
    ("status", 2, rf"the following arguments are required: STUDY\. {SEE.format('status')}"),
    ("status digts", 1, r"There is no study in .*digts\. There: digits, faces\. Did you mean 'digits'\?"),
    ("status digits --wacth", 2, rf"unknown option '--wacth'\. Did you mean '--watch'\? {SEE.format('status')}"),
    ("status digits faces", 2, r"unknown argument 'faces'\."),
    ("status digits --watch --json", 2, r"argument --json: not allowed with argument --watch\."),
    ("status digits --every 0", 2, r"--every: must be a number above 0, but got '0'\."),
    ("status digits --latest few", 2, r"--latest: must be an integer above 0, but got 'few'\."),
    ("status lightningtune_runs", 1, r"no study in .*lightningtune_runs\. There: digits, faces\."),
    ("status a/b", 1, r"There is no study in .*/a/b\."),
    ("status a:b", 1, r"study_name='a:b' must be usable as a folder's name"),
    ("status digits --storage sqlite:///no.db", 1, r"storage='sqlite:///no\.db': there is no such file\."),
    ("status digits --storage sqlite:no.db", 1, r"is no URL\. A URL begins with a name and '://'"),
    ("status digits --storage nosql://x/y", 1, r"storage='nosql://x/y' cannot be opened"),
    ("best digits --number 99", 1, r"Trial 99 of study 'digits' does not exist\. Complete: 0, 2, 3\."),
    ("best digits --number 1", 1, r"Trial 1 of study 'digits' is not complete\. Complete: 0, 2, 3\."),
    ("replay digits 0 --tolerance 2", 1, r"tolerance must be a number from 0 and below 1, but got 2\.0"),
    ("best digits --number x", 2, r"--number: must be an integer, but got 'x'\."),
    ("refit digits --seeds 1,2", 2, r"but got '1,2'\. Several are written with spaces: 1 2\."),
    ("best digits --json --config_only", 2, r"not allowed with argument"),
    ("trials digits --state failed", 2, r"--state: invalid choice: 'failed'"),
    ("trials digits --where lr", 1, r"'lr' is no condition\. One is a column, a sign and a value"),
    ("trials digits --where rl<1", 1, r"There is no column 'rl'\..* There: number, state, val_loss, lr"),
    ("trials digits --where lr<x", 1, r"'lr' is not compared with 'x' by '<'"),
    ("trials digits --sort val_los", 1, r"no column 'val_los'\. Did you mean 'val_loss'\?"),
    ("trials digits --limit -3", 2, r"--limit: (must be an integer above 0, but got '-3'|expected one argument)"),
    ("compare digits", 2, r"the following arguments are required: OTHER\."),
    ("compare digits fces", 1, r"Did you mean 'faces'\?"),
    ("export digits out.tar", 1, r"'out\.tar' must end in one of \.zip, \.csv, \.json"),
    ("export digits --output x.zip", 2, r"unknown option '--output'\. STUDY and FILE are given without an option\."),
    ("export digits out.csv --weights", 1, r"Weights are exported into a \.zip"),
    ("list --storage sqlite:///no.db", 1, r"storage='sqlite:///no\.db': there is no such file\."),
    ("resume digits --check no", 2, r"--check: must be true or false, but got 'no'\."),
    ("list nowhere", 1, r"There is no folder 'nowhere' here"),
    ("rm digits", 1, r"Nothing was removed: nobody is there to be asked\. With --yes it is done at once\."),
    ("dashboard digits --port http", 2, r"--port: must be an integer above 0, but got 'http'\."),
    ("replay digits", 2, r"the following arguments are required: N\."),
    ("refit digits", 1, r"Study 'digits' was run by a script: call optimizer\.refit\(\)"),
    ("refit digits --max_epochs 0", 2, r"argument --max_epochs: .*0"),
    ("replay digits first", 2, r"argument N: must be an integer, but got 'first'\."),
    ("replay digits 9", 1, r"Study 'digits' has no trial 9\. It has trials 0 to 3\."),
    (
        "resume digits",
        1,
        r"Study 'digits' was not started by 'lightningtune tune'\. Run the script or the notebook again",
    ),
    ("worker digits", 1, r"Study 'digits' was not started by 'lightningtune tune'\."),
]


@pytest.mark.parametrize(("line", "code", "says"), WRONG, ids=[line for line, _, _ in WRONG])
def test_a_wrong_command_line_is_told_so_in_one_line(studies, capsys, line, code, says):
    assert main(line.split()) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("lightningtune")
    assert re.search(says, said.err), said.err
