"""Which errors say that a storage is away."""

import errno
import itertools
import subprocess
import sys

import pytest
import sqlalchemy
from sqlalchemy import exc

from lightningtune.study.outage import is_away, waits


def raised(kind, text, invalidated=False):
    return kind("SELECT 1", {}, Exception(text), connection_invalidated=invalidated)


AWAY = [
    raised(exc.OperationalError, "server closed the connection unexpectedly"),
    raised(exc.OperationalError, 'connection to server on socket "/run/x" failed: No such file or directory'),
    raised(exc.OperationalError, "FATAL:  the database system is starting up"),
    raised(exc.OperationalError, "database is locked"),
    raised(exc.OperationalError, "database or disk is full"),
    raised(exc.InterfaceError, "connection already closed"),
    raised(exc.DBAPIError, "SSL SYSCALL error: EOF detected", invalidated=True),
    exc.TimeoutError("QueuePool limit"),
    exc.PendingRollbackError("Can't reconnect until invalid transaction is rolled back."),
    OSError(errno.ENOSPC, ""),
    OSError(errno.ESTALE, ""),
    ConnectionRefusedError(),
    TimeoutError(),
]
THERE = [
    raised(exc.OperationalError, 'FATAL:  password authentication failed for user "x"'),
    raised(exc.OperationalError, 'FATAL:  database "x" does not exist'),
    raised(exc.OperationalError, "no such table: studies"),
    raised(exc.OperationalError, "attempt to write a readonly database"),
    raised(exc.ProgrammingError, 'relation "studies" does not exist'),
    raised(exc.IntegrityError, "UNIQUE constraint failed"),
    PermissionError(errno.EACCES, ""),
    FileNotFoundError(errno.ENOENT, ""),
    KeyError("x"),
    ValueError("database is locked"),
]


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_what_passes(error):
    assert is_away(error)
    outer = RuntimeError("wrapped")
    outer.__cause__ = error
    assert is_away(outer)


@pytest.mark.parametrize("error", THERE, ids=repr)
def test_what_lasts(error):
    assert not is_away(error)


def test_a_database_of_sqlites_that_has_no_tables():
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(exc.OperationalError) as raised:
        connection.execute(sqlalchemy.text("SELECT * FROM studies"))
    engine.dispose()
    assert not is_away(raised.value)


def test_waits_grow_to_a_limit():
    found = [*itertools.islice(waits(), 12)]
    assert found[0] <= 0.05
    assert all(2.5 <= one <= 5 for one in found[-4:])


def test_nothing_is_imported_for_it():
    code = "import sys; from lightningtune.study.outage import is_away; is_away(KeyError()); "
    code += "assert not {'grpc', 'redis', 'sqlalchemy'} & {*sys.modules}"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
