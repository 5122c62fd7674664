"""The server of optuna-dashboard's pages."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna

from lightningtune.report.dashboard.files import StudyFiles
from lightningtune.report.dashboard.storage import ShownStorage
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.identifiers import storage_of
from lightningtune.study.progress import metric_names

log = logging.getLogger(__name__)

_App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own: a page does not wait while a checkpoint is sent."""

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere, two servers could listen at one port


class _ServerOfIPv6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Tell of a request where somebody debugs; a page asks every few seconds."""
        log.debug(format, *args)


def serving(study: optuna.Study, directory: StudyDirectory, host: str, port: int) -> WSGIServer:
    """Return a server of optuna-dashboard that listens, with notes and files for each trial of a study.

    Args:
        study: the study.
        directory: its folder.
        host: the address to listen at.
        port: the port.

    Raises:
        OSError: when that is not to be had.
    """
    # imported where it is used: it is an extra
    from optuna_dashboard import wsgi

    files = StudyFiles(directory, metric_names(study, directory.read_definition()))
    app = wsgi(ShownStorage(study, directory, files), artifact_store=files)
    app = _keeping(app, storage_of(study).get_study_id_from_name(study.study_name))
    return make_server(host, port, app, _ServerOfIPv6 if ":" in host else _Server, _Handler)


def _keeping(app: _App, study_id: int) -> _App:
    """Return an app that leaves a study in the folder of its name: a renamed one would be a copy without it."""
    refused = re.compile(rf"POST /api/studies/0*{study_id}/rename/*|DELETE /api/studies/0*{study_id}/*")

    def kept(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not refused.fullmatch(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"):
            return app(environ, start_response)
        reason = "A study keeps the name of its folder, and is removed with it, by 'lightningtune rm'."
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": reason}).encode()]

    return kept
