"""``lightningtune dashboard``."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from argparse import Namespace
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from lightningtune.cli.output import show
from lightningtune.cli.parsing import CommandParser, positive
from lightningtune.cli.studies import add_study, open_study
from lightningtune.errors import ConfigurationError

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
"""The dashboard asks for no password, so that only this machine may reach it."""


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own: a browser opens connections that it does not use at once."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log a request for debugging only: a page asks every few seconds."""
        log.debug(format, *args)


def dashboard_parser() -> CommandParser:
    """Return the parser of ``dashboard``."""
    description = "Opens a study in optuna-dashboard, a page in the browser, until Ctrl-C."
    parser = CommandParser("dashboard", _serve, description)
    add_study(parser)
    parser.add_argument("--port", metavar="N", type=positive(int), default=8080, help="(default: 8080)")
    return parser


def _serve(given: Namespace) -> None:
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise ConfigurationError("optuna-dashboard is not installed. Try: pip install 'lightningtune[dashboard]'")
    study = open_study(given.study, given.storage).study

    # deferred imports: --help stays fast, and the dashboard is an extra
    from optuna_dashboard import wsgi

    from lightningtune.study.storage import get_storage

    address = f"{_HOST}:{given.port}"
    try:
        server = make_server(_HOST, given.port, wsgi(get_storage(study)), _Server, _Handler)
    except (OSError, OverflowError) as error:  # the port is taken, or there is no such port
        raise ConfigurationError(
            f"The dashboard cannot listen at {address}: {error}. Give it another port with --port."
        ) from error
    with server:
        show(f"Study '{study.study_name}': http://{address}, until Ctrl-C.")
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            server.serve_forever()
