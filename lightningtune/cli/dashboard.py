"""``lightningtune dashboard``."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence

from lightningtune.cli.parsing import CommandParser, positive
from lightningtune.cli.studies import add_study, open_study
from lightningtune.errors import ConfigurationError


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser("dashboard", "Opens a study in optuna-dashboard, a page in the browser, until Ctrl-C.")
    add_study(parser)
    parser.add_argument("--port", metavar="N", type=positive(int), default=8080, help="(default: 8080)")
    parser.add_argument("--host", default="localhost", help="the address that it listens at (default: localhost)")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Serve the dashboard."""
    given = parser().parse_args(arguments)
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise ConfigurationError("optuna-dashboard is not installed. Try: pip install 'lightningtune[dashboard]'")
    found = open_study(given.study, given.storage)

    from lightningtune.report.dashboard.server import serving

    address = f"[{given.host}]:{given.port}" if ":" in given.host else f"{given.host}:{given.port}"
    try:
        server = serving(found.study, found.directory, given.host, given.port)
    except (OSError, OverflowError) as error:  # the port is another's, or there is none of that number
        raise ConfigurationError(
            f"The dashboard cannot listen at {address}: {error}. Give it another with --port or --host."
        ) from error
    with server:
        print(f"Study '{found.study.study_name}': http://{address}, until Ctrl-C.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # which is how it ends
            server.serve_forever()
    return 0
