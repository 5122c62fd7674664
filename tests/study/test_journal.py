"""The journal's lock, held by real processes that are killed."""

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from lightningtune import ConfigurationError
from lightningtune.study.journal import JournalLock, _Journal, open_journal
from lightningtune.study.storage import open_storage

HOLDER = """
import sys, time
from optuna.storages.journal import JournalFileSymlinkLock
from lightningtune.study.journal import JournalLock
lock = {"ours": JournalLock, "optuna's": JournalFileSymlinkLock}[sys.argv[1]](sys.argv[2])
lock.acquire()
print(flush=True)
time.sleep(float(sys.argv[3]))
lock.release()
"""


FORKER = """
import os, signal, sys, time
from lightningtune.study.journal import JournalLock
lock = JournalLock(sys.argv[1])
lock.acquire()
child = os.fork()
if not child:
    time.sleep(600)
lock.release()
start = time.monotonic()
lock.acquire()
lock.release()
os.kill(child, signal.SIGKILL)
print(time.monotonic() - start)
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "journal.log"
    optuna.create_study(storage=open_storage(path, path), study_name="s")
    return path


def writer(path):
    return optuna.load_study(study_name="s", storage=open_storage(path, path))


def holder(which, path, seconds):
    child = subprocess.Popen([sys.executable, "-c", HOLDER, which, str(path), str(seconds)], stdout=subprocess.PIPE)
    child.stdout.readline()
    return child


@pytest.mark.parametrize("which", ["ours", "optuna's"])
def test_a_lock_that_a_killed_process_held_is_taken_soon(path, which):
    child = holder(which, path, 600)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    with path.open("ab") as file:
        file.write(b'{"op_code":2,"worker')
    assert os.path.lexists(f"{path}.lock")
    study, start = writer(path), time.monotonic()
    study.set_user_attr("a", 1)
    assert time.monotonic() - start < 25, "Optuna waits for 30 seconds"
    assert writer(path).user_attrs == {"a": 1}
    assert not os.path.lexists(f"{path}.lock")


def test_a_lock_that_a_living_process_holds_is_waited_for(path):
    child = holder("ours", path, 2.5)  # longer than a lock of the dead stays
    study, start = writer(path), time.monotonic()
    study.set_user_attr("a", 1)
    assert time.monotonic() - start > 1
    child.communicate()
    assert child.returncode == 0, "nobody has taken it away"


def test_a_process_that_was_forked_meanwhile_does_not_keep_the_lock(path):
    done = subprocess.run([sys.executable, "-c", FORKER, str(path)], capture_output=True, text=True, timeout=60)
    assert float(done.stdout) < 25, "Optuna waits for 30 seconds"


def test_programs_that_know_optunas_lock_only_write_at_the_same_time(path, monkeypatch):
    monkeypatch.setattr("lightningtune.study.journal._PATIENCE", 20.0)  # so long a busy disk may take to write
    locks = [JournalLock, JournalLock, JournalFileSymlinkLock, JournalFileSymlinkLock]

    def write(number):
        backend = JournalFileBackend(str(path), locks[number](str(path)))
        study = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend))
        for count in range(10):
            study.set_user_attr(f"{number} {count}", 1)

    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(write, range(4))] == [None] * 4
    assert len(writer(path).user_attrs) == 40


def test_a_lock_that_is_held_is_copied_as_one_that_is_not(path):
    lock = JournalLock(str(path))
    lock.acquire()
    copy = pickle.loads(pickle.dumps(lock))
    lock.release()
    assert copy.acquire()
    copy.release()


def test_the_lock_of_a_relative_path_leads_to_the_file(path, monkeypatch):
    monkeypatch.chdir(path.parent.parent)
    lock = open_storage(path.relative_to(path.parent.parent), path).storage._backend._lock
    lock.acquire()
    assert path.with_name("journal.log.lock").stat().st_ino == path.stat().st_ino
    lock.release()


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_record_that_is_not_as_it_was_written_is_refused_with_its_line(path):
    writer(path).set_user_attr("score", 0.25)
    writer(path).set_user_attr("after", 1)
    flip(path, path.read_bytes().index(b"0.25") + 2)
    with pytest.raises(ConfigurationError) as caught:
        writer(path)
    assert str(caught.value) == (
        f"The journal '{path}' is damaged, or is none: its line 2 is not as it was written. "
        "Put a copy of it in its place, or remove that line."
    )


@pytest.mark.parametrize(
    ("line", "why", "remedy"),
    [
        ("{", "a line of it is not JSON (Expecting property name", "remove the lines that are not JSON."),
        ("{}", "a line of it is no record, or none that fits the others (KeyError: 'op_code')", "remove that line."),
    ],
)
def test_a_line_that_is_no_record_is_told_with_what_helps(path, line, why, remedy):
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(ConfigurationError) as caught:
        writer(path)
    assert str(caught.value).startswith(f"The journal '{path}' is damaged, or is none: {why}")
    assert str(caught.value).endswith(f". Put a copy of it in its place, or {remedy}")


@pytest.mark.parametrize("garbage", [b"\xff\x00\n", b"garbage\n", b'{"op_code":2,"worker\n'])
def test_a_last_line_that_is_no_record_is_not_written_after(path, garbage):
    study = writer(path)
    with path.open("ab") as file:
        file.write(garbage)
    with pytest.raises(ConfigurationError, match=f"The journal '{path}' is damaged"):
        study.set_user_attr("a", 1)
    assert path.read_bytes().endswith(garbage)
    assert not os.path.lexists(f"{path}.lock")
    with pytest.raises(ConfigurationError, match=f"The journal '{path}' is damaged"):
        open_journal(path)


def test_two_records_in_one_line_are_none(path):
    for name in ("one", "two"):
        writer(path).set_user_attr(name, 1)
    first, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(first + b"," + rest)
    with pytest.raises(ConfigurationError, match="a line of it is not JSON"):
        writer(path)


def test_it_can_be_read_from_any_record_again_and_again(path):
    for number in range(5):
        writer(path).set_user_attr("a", number)
    backend = _Journal(path)
    whole = [*backend.read_logs(0)]
    for start in (3, 0, 5, 6, 4):
        assert [*backend.read_logs(start)] == whole[start:]
    few = backend.read_logs(1)
    assert next(few) == whole[1]
    few.close()
    assert [*backend.read_logs(2)] == whole[2:]
    writer(path).set_user_attr("a", 9)
    assert len([*backend.read_logs(6)]) == 1


def test_a_line_longer_than_what_is_read_at_once_is_found_whole(path):
    writer(path).set_user_attr("long", "x" * 100_000)
    with path.open("ab") as file:
        file.write(b"y" * 20_000)
    writer(path).set_user_attr("a", 1)
    assert writer(path).user_attrs == {"long": "x" * 100_000, "a": 1}


def test_optuna_itself_reads_the_journal_and_writes_it(path):
    writer(path).set_user_attr("ours", {"nested": [1, 0.1, None, "ü"]})
    plain = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    optuna.load_study(study_name="s", storage=plain).set_user_attr("its", 1)
    assert writer(path).user_attrs == {"ours": {"nested": [1, 0.1, None, "ü"]}, "its": 1}


def test_a_journal_in_whose_place_is_a_folder_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=f"The journal '{tmp_path}' cannot be opened: Is a directory"):
        open_journal(tmp_path)
