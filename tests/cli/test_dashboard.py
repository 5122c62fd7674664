"""The dashboard: optuna-dashboard's own server in a process of its own, asked over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from lightningtune.cli.main import main

pytest.importorskip("optuna_dashboard")

SERVE = "import sys; from lightningtune.cli.main import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"


def test_it_serves_the_study_on_this_machine_alone_without_torch_until_ctrl_c(studies):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-c", SERVE, "dashboard", "digits", "--port", str(port)]
    journal = studies / "lightningtune_runs" / "digits" / "journal.log"
    before = journal.read_bytes()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        assert served.stdout.readline() == f"Study 'digits': http://127.0.0.1:{port}, until Ctrl-C.\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=60) as answer:
            shown = json.load(answer)
        os.kill(served.pid, signal.SIGINT)
        out, errors = served.communicate(timeout=60)
    assert [study["study_name"] for study in shown["study_summaries"]] == ["digits"]
    assert (out, errors) == ("0 False\n", "")
    assert journal.read_bytes() == before


def test_a_port_that_is_taken_is_a_line(studies, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert main(["dashboard", "digits", "--port", str(taken)]) == 1
    errors = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1:{taken}" in errors
    assert "Give it another port with --port" in errors
