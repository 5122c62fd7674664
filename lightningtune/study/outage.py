"""Which errors say that a storage is away for a while, and how long to wait before it is tried again."""

from __future__ import annotations

import contextlib
import errno
import random
import re
import sys
from collections.abc import Iterator
from typing import Any

_FIRST, _LONGEST = 0.05, 5.0
_MARK = "_lightningtune_storage_is_away"
_PASSING = {
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EIO", "ESTALE", "EBUSY", "EAGAIN", "ENFILE", "EMFILE", "ENOLCK", "ENOMEM", "EREMOTEIO"),
        *("ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENOTCONN", "ESHUTDOWN"),
    )
    if hasattr(errno, name)
}
# a server that refuses, and a database without what is asked for, will do so again
_LASTING = re.compile(
    r"password|authentication|access denied|permission denied|not permitted|pg_hba|does not exist"
    r"|no such (table|column)|has no column|unknown (database|column)"
    r"|read-?only|syntax error",
    re.IGNORECASE,
)
# what a proxy says of an error of the database behind it
_BEHIND_A_PROXY = re.compile(r"raised during the commit|OperationalError|database is locked|\[Errno", re.IGNORECASE)


def is_away(error: BaseException) -> bool:
    """Whether an error of a storage means that it is away, or busy, and may be there again in a while.

    A server that cannot be reached, a lock that another process holds and a full disk pass. A wrong password and a
    missing table stay. What the error was raised from counts too.

    Example:
        >>> is_away(OSError(errno.ENOSPC, "No space left on device"))
        True
        >>> is_away(FileNotFoundError(errno.ENOENT, "No such file"))
        False
    """
    return any(_is_passing(one) for one in _chain(error))


def mark(error: BaseException) -> None:
    """Note on an error that a study's storage has raised it; see `is_of_storage`."""
    with contextlib.suppress(AttributeError):  # of a class that takes no attributes
        error.__dict__[_MARK] = True


def is_of_storage(error: BaseException) -> bool:
    """Whether a study's storage that is away has raised an error: another disk may be full, too."""
    return any(getattr(one, _MARK, False) for one in _chain(error))


def waits() -> Iterator[float]:
    """Yield the seconds to wait before each new try: doubled up to 5, and shortened at random by up to half."""
    longest = _FIRST
    while True:
        # several hosts that lost the same storage must not come back all at once
        yield longest * random.uniform(0.5, 1.0)
        longest = min(2 * longest, _LONGEST)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return isinstance(error, (ConnectionError, TimeoutError)) or error.errno in _PASSING
    # a library that is not imported has raised nothing: none is imported to find out
    return _is_passing_sql(error) or _is_passing_grpc(error) or _is_passing_redis(error)


def _is_passing_sql(error: BaseException) -> bool:
    sql: Any = sys.modules.get("sqlalchemy.exc")
    if sql is None:
        return False
    if isinstance(error, sql.DBAPIError):
        is_passing = isinstance(error, (sql.OperationalError, sql.InterfaceError)) or error.connection_invalidated
        return bool(is_passing) and not _LASTING.search(str(error.orig))
    # a transaction is pending where its connection was lost, and somebody has ignored that
    return isinstance(error, (sql.TimeoutError, sql.PendingRollbackError))


def _is_passing_grpc(error: BaseException) -> bool:
    grpc: Any = sys.modules.get("grpc")
    if grpc is None or not isinstance(error, grpc.RpcError) or not isinstance(error, grpc.Call):
        return False
    if error.code() is grpc.StatusCode.UNKNOWN:
        details = error.details() or ""
        return bool(_BEHIND_A_PROXY.search(details)) and not _LASTING.search(details)
    return error.code() is grpc.StatusCode.UNAVAILABLE


def _is_passing_redis(error: BaseException) -> bool:
    redis: Any = sys.modules.get("redis.exceptions")
    if redis is None or isinstance(error, redis.AuthenticationError):
        return False
    return isinstance(error, (redis.ConnectionError, redis.TimeoutError))
