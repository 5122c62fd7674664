"""Wrong command lines, each with what it is told."""

import re

import pytest

from lightningtune.cli.main import main

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
