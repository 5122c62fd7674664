"""The dashboard: optuna-dashboard's own server in a process of its own, asked over HTTP."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path

import optuna
import pytest
from browser import find_browser, opened

from lightningtune.cli.main import main
from lightningtune.study.finding import find_study

pytest.importorskip("optuna_dashboard")

COMMAND = str(Path(sysconfig.get_path("scripts"), "lightningtune"))


@pytest.fixture
def port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def ask(studies, port):
    """The study `digits` on a page; what asks it."""
    with serving(port) as asked:
        yield asked


@contextlib.contextmanager
def serving(port, host="localhost", address="localhost"):
    command = [COMMAND, "dashboard", "digits", "--port", str(port), "--host", host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        assert served.stdout.readline() == f"Study 'digits': http://{address}:{port}, until Ctrl-C.\n"

        def asked(path, method="GET", **body):
            data = json.dumps(body).encode() if body else None
            request = urllib.request.Request(
                f"http://{address}:{port}/{path}", data, {"Content-Type": "application/json"}, method=method
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()

        try:
            yield asked
        finally:
            served.send_signal(signal.SIGINT)
            code = served.wait(60)
            errors = served.stderr.read()
    assert code == 0
    assert errors == ""


def trials_of(ask):
    (study,) = json.loads(ask("api/studies"))["study_summaries"]
    return study["study_id"], json.loads(ask(f"api/studies/{study['study_id']}"))


def artifact(trial, name):
    (found,) = [each for each in trial["artifacts"] if each["filename"] == name]
    return found


def test_each_trial_has_a_note_and_its_files(ask, studies):
    number, shown = trials_of(ask)
    folder = studies / "lightningtune_runs" / "digits"
    complete, failed = shown["trials"][0], next(trial for trial in shown["trials"] if trial["state"] == "Fail")
    assert re.match(r"\*\*complete\*\* · 2 epochs · \d", complete["note"]["body"])
    assert f"Folder: `{folder / 'trials' / '0000'}`" in complete["note"]["body"]
    assert re.search(r"\*\*fail\*\*.*\n\nRuntimeError\\: lr 19\\.133 is too high", failed["note"]["body"])
    assert [each["filename"] for each in complete["artifacts"]][:3] == ["curves.svg", "metrics.csv", "best.ckpt"]
    for name in ("best.ckpt", "metrics.csv", "config.yaml"):
        address = f"artifacts/{number}/{complete['trial_id']}/{artifact(complete, name)['artifact_id']}"
        assert ask(address) == (folder / "trials" / "0000" / name).read_bytes()
    assert b"Traceback" in ask(
        f"artifacts/{number}/{failed['trial_id']}/{artifact(failed, 'error.txt')['artifact_id']}"
    )
    curves = ask(f"artifacts/{number}/{complete['trial_id']}/{artifact(complete, 'curves.svg')['artifact_id']}")
    assert curves.startswith(b"<svg")
    assert b"val_loss" in curves
    best = shown["best_trials"][0]
    assert (
        artifact(best, "best.ckpt")["artifact_id"]
        == artifact(shown["trials"][best["number"]], "best.ckpt")["artifact_id"]
    )
    winner = f"artifacts/{number}/{artifact(shown, 'model.ckpt')['artifact_id']}"
    assert ask(winner) == (folder / "best" / "model.ckpt").read_bytes()


def test_looking_at_a_study_changes_nothing_and_a_note_of_the_users_stays(ask, studies):
    journal = studies / "lightningtune_runs" / "digits" / "journal.log"
    before = journal.read_bytes()
    number, shown = trials_of(ask)
    assert journal.read_bytes() == before
    trial = shown["trials"][1]
    path, body = f"api/studies/{number}/{trial['trial_id']}/note", "Odd: look again."
    ask(path, "PUT", version=trial["note"]["version"] + 1, body=body)
    assert trials_of(ask)[1]["trials"][1]["note"]["body"] == body
    added = journal.read_bytes()[len(before) :].decode().splitlines()
    assert added
    assert all(f"dashboard:{trial['trial_id']}:note" in line for line in added)


def test_the_files_of_a_study_are_not_removed_and_those_of_others_are(ask, studies):
    number, shown = trials_of(ask)
    trial = shown["trials"][0]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        ask(f"api/artifacts/{number}/{trial['trial_id']}/{artifact(trial, 'best.ckpt')['artifact_id']}", "DELETE")
    assert (studies / "lightningtune_runs" / "digits" / "trials" / "0000" / "best.ckpt").is_file()
    told = json.loads(ask(f"api/artifacts/{number}", "POST", file="data:text/plain;base64,aGk=", filename="hi.txt"))
    address = f"artifacts/{number}/{told['artifact_id']}"
    assert ask(address) == b"hi"
    ask(f"api/{address}", "DELETE")
    assert not [*(studies / "lightningtune_runs" / "digits" / "artifacts").iterdir()]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask(f"artifacts/{number}/{trial['trial_id']}/00000000-0000-0000-0000-000000000000")


def test_a_study_is_neither_renamed_nor_removed_without_its_folder(ask, studies):
    number, shown = trials_of(ask)
    for path, method, body in (
        (f"api/studies/{number}/rename", "POST", {"study_name": "other"}),
        (f"api/studies/{number}/rename/", "POST", {"study_name": "other"}),
        (f"api/studies/{number}", "DELETE", {}),
    ):
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            ask(path, method, **body)
        assert "'lightningtune rm'" in json.loads(refused.value.read())["reason"]
    assert len(trials_of(ask)[1]["trials"]) == len(shown["trials"])


def test_a_trial_that_runs_has_a_note_of_its_own(ask, studies):
    study = find_study("digits").study
    running = study.ask({"lr": optuna.distributions.FloatDistribution(0.01, 20.0)})
    running.report(0.5, 0)
    folder = studies / "lightningtune_runs" / "digits" / "trials" / f"{running.number:04d}"
    folder.mkdir()
    number, shown = trials_of(ask)
    trial = shown["trials"][running.number]
    assert (trial["note"]["body"], trial["note"]["version"]) == (f"**running**\n\nFolder: `{folder}`", 1)
    picture = ask(f"artifacts/{number}/{trial['trial_id']}/{artifact(trial, 'curves.svg')['artifact_id']}")
    assert b"val_loss, 0.5 to 0.5" in picture


@pytest.mark.slow
@pytest.mark.skipif(
    find_browser() is None and "CI" not in os.environ, reason="there is no browser; `apt-get install chromium`"
)
def test_a_browser_shows_the_note_and_the_curves(ask, port):
    with opened(find_browser()) as page:
        page.send("Page.navigate", url=f"http://localhost:{port}/dashboard/studies/0/trials?numbers=0")
        page.wait("document.images.length === 1 && document.images[0].naturalWidth > 0")
        text = page.run("document.body.innerText")
        assert not [
            problem for problem in page.problems if not problem.startswith("asked the network for http://localhost")
        ]
    assert "It trains the untuned defaults." in text
    for name in ("best.ckpt", "config.yaml", "curves.svg", "metrics.csv"):
        assert name in text


def test_an_address_of_the_newer_protocol_stands_in_brackets(studies, port):
    try:
        socket.create_server(("::1", port), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no address of IPv6")
    with serving(port, "::1", "[::1]") as ask:
        assert trials_of(ask)[1]["trials"]


def test_a_port_that_is_taken_is_a_line(studies, capsys):
    with socket.create_server(("localhost", 0)) as server:
        taken = server.getsockname()[1]
        assert main(["dashboard", "digits", "--port", str(taken)]) == 1
    said = capsys.readouterr().err
    assert f"cannot listen at localhost:{taken}" in said
    assert "Give it another with --port" in said
