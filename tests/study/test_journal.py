"""The journal: its lock, held by real processes that are killed, and its records, changed by hypothesis."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from lightningtune import ConfigurationError
from lightningtune.study.journal import Journal, JournalLock, open_journal
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


def test_programs_that_know_optunas_lock_only_write_at_the_same_time(path):
    def patient_lock(path):
        return JournalLock(path, dead_lock_seconds=20.0)  # so long a busy disk may take to write

    locks = [patient_lock, patient_lock, JournalFileSymlinkLock, JournalFileSymlinkLock]

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


def refused(path, line, why):
    with pytest.raises(ConfigurationError) as caught:
        writer(path)
    assert str(caught.value).startswith(f"The journal '{path}' is damaged, or is none: its line {line} {why}")
    assert str(caught.value).endswith("Put a copy of it in its place, or keep only the lines before that one.")


def test_a_record_that_is_not_as_it_was_written_is_refused_with_its_line(path):
    writer(path).set_user_attr("score", 0.25)
    writer(path).set_user_attr("after", 1)
    flip(path, path.read_bytes().index(b"0.25") + 2)
    refused(path, 2, "is not as it was written, or a line before it is missing or in another place. ")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "is not JSON (Expecting property name"),
        ("[" * 100_000, "is not JSON (maximum recursion depth exceeded"),
        ("{}", "is no record, or none that fits the others (KeyError: 'op_code')"),
        ('{"op_code":8,"worker_id":"w"}', "is no record, or none that fits the others (KeyError: 'trial_id')"),
    ],
)
def test_a_line_of_another_program_that_is_no_record_is_refused_with_its_line(path, line, why):
    with path.open("a") as file:
        file.write(f"{line}\n")
    refused(path, 2, why)


def test_a_record_of_an_earlier_version_is_read_and_covered_by_the_next(path):
    backend = JournalFileBackend(str(path))
    backend.append_logs([earlier({"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"score": 0.25}})])
    assert writer(path).user_attrs == {"score": 0.25}
    writer(path).set_user_attr("after", 1)
    flip(path, path.read_bytes().index(b"0.25") + 2)
    refused(path, 3, "is not as it was written, or a line before it is missing or in another place. ")


def earlier(log):
    """Return a record as version 0.1 wrote it."""
    return {**log, "crc": zlib.crc32(json.dumps(log, separators=(",", ":")).encode())}


class Earlier(JournalFileBackend):
    def append_logs(self, logs):
        super().append_logs([earlier(log) for log in logs])


def journal_of(path, hosts):
    """Return the lines of a journal that several programs have written, and what each beginning of it says."""
    optuna.create_study(storage=open_storage(path, path), study_name="s")
    for number, host in enumerate(hosts):
        storage = open_storage(path, path) if host is None else optuna.storages.JournalStorage(host(str(path)))
        study = optuna.load_study(study_name="s", storage=storage, sampler=optuna.samplers.RandomSampler(seed=number))
        trial = study.ask()
        trial.report(trial.suggest_float("x", 0, 1), 0)
        study.tell(trial, number)
    lines = path.read_bytes().splitlines(keepends=True)
    return lines, [said(path, lines[:count]) for count in range(len(lines) + 1)]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return journal_of(tmp_path_factory.mktemp("ours") / "journal.log", [None] * 3)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    hosts = [None, Earlier, JournalFileBackend, None]
    return journal_of(tmp_path_factory.mktemp("mixed") / "journal.log", hosts)


def said(path, lines):
    """Return what a journal says."""
    path.write_bytes(b"".join(lines))
    storage = open_journal(path)
    trials = [storage.get_all_trials(study._study_id) for study in storage.get_all_studies()]
    return [[(t.state, t.values, t.params, t.intermediate_values, t.user_attrs) for t in some] for some in trials]


places = st.floats(0, 1, exclude_max=True)


def pick(lines, place):
    return int(place * len(lines))


def drop(lines, one, other):
    del lines[pick(lines, one)]


def swap(lines, one, other):
    one, other = pick(lines, one), pick(lines, other)
    lines[one], lines[other] = lines[other], lines[one]


def duplicate(lines, one, other):
    lines.insert(pick(lines, one), lines[pick(lines, other)])


def flip_a_bit(lines, one, other):
    line = bytearray(lines[pick(lines, one)])
    line[pick(line, other)] ^= 1 << int(other * 1e6) % 8
    lines[pick(lines, one)] = bytes(line)


def truncate(lines, one, other):
    line = pick(lines, one)
    lines[line:] = [lines[line][: pick(lines[line], other)]]


def check_changed(journal, changes):
    """A journal of which lines were changed says what a beginning of it has said, or is refused with a line."""
    lines, beginnings = [*journal[0]], journal[1]
    for change, one, other in changes:
        if lines and lines != [b""]:
            change(lines, one, other)
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = said(Path(folder, "journal.log"), lines)
        except ConfigurationError as error:
            found = str(error)
    assert found in beginnings or re.fullmatch(
        rf"The journal '{folder}/journal.log' is damaged, or is none: its line \d+ .+", str(found)
    )


@given(st.lists(st.tuples(st.sampled_from([drop, swap, duplicate, flip_a_bit, truncate]), places, places), max_size=3))
@settings(max_examples=300)
def test_a_journal_of_which_lines_are_changed_says_what_a_beginning_of_it_said_or_is_refused(ours, changes):
    check_changed(ours, changes)


@given(st.sampled_from([drop, swap, duplicate, flip_a_bit]), places, places)
@settings(max_examples=200)
def test_a_line_of_any_program_is_changed_in_a_journal_of_several(mixed, change, one, other):
    check_changed(mixed, [(change, one, other)])


def test_a_line_that_was_dropped_is_noticed_where_it_was(mixed, tmp_path):
    lines, beginnings = mixed
    path = tmp_path / "journal.log"
    for number in range(len(lines) - 1):
        with pytest.raises(ConfigurationError, match=r"is damaged, or is none: its line \d+") as caught:
            said(path, [*lines[:number], *lines[number + 1 :]])
        line = int(re.search(r"its line (\d+)", str(caught.value))[1])
        # a record of another program has no sum: the next one that has tells
        assert all(b"chain" not in line for line in lines[number + 1 : line])
    assert said(path, lines[:-1]) == beginnings[-2]


@given(st.lists(st.sampled_from(["one", "other", "earlier", "plain", "torn"]), max_size=12))
@settings(max_examples=20)
def test_whoever_writes_in_turn_all_read_the_same(turns):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "journal.log")
        optuna.create_study(storage=open_storage(path, path), study_name="s")
        plain = {"earlier": Earlier, "plain": JournalFileBackend}
        hosts = {name: open_storage(path, path) for name in ("one", "other")}
        hosts |= {name: optuna.storages.JournalStorage(kind(str(path))) for name, kind in plain.items()}
        expected = {}
        for number, turn in enumerate(turns):
            name = "one" if turn == "torn" else turn  # other programs would write after a torn line
            if turn == "torn":
                with path.open("ab") as file:
                    file.write(b'{"op_code":2,"worker')
            hosts[name].set_study_user_attr(0, str(number), name)
            expected[str(number)] = name
        assert [host.get_study_user_attrs(0) for host in (*hosts.values(), open_storage(path, path))] == [expected] * 5


def test_a_torn_line_that_is_replaced_while_it_is_read_is_no_damage(path):
    writer(path).set_user_attr("a", 1)
    whole = path.read_bytes()

    class Waiting(JournalLock):
        """Waits for a writer that has cut a torn line, and writes in its place."""

        def acquire(self):
            path.write_bytes(whole)
            return super().acquire()

    journal = Journal(path, Waiting(str(path)))
    path.write_bytes(whole[:-60] + b"#" * 20 + whole[-40:])
    assert [log["op_code"] for log in journal.read_logs(0)] == [0, 2]


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
    refused(path, 1, "is not JSON (Extra data")


def test_it_can_be_read_from_any_record_again_and_again(path):
    for number in range(5):
        writer(path).set_user_attr("a", number)
    backend = Journal(path)
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
