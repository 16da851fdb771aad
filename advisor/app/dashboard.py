"""optuna-dashboard over the ledger of a run: on the loopback address, and read only."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from advisor.domain.errors import BadInput
from advisor.host.page_server import is_loopback
from advisor.host.ports import LOOPBACK
from advisor.store.journal import JOURNAL
from advisor.store.ledger_view import LedgerView

PACKAGE = "optuna_dashboard"
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def find_journal(place: Path) -> Path:
    """The journal of a run: of the folder itself, else of the run below it that changed last.

    Raises:
        BadInput: there is none.
    """
    found = [path for pattern in ("", "*/", "*/*/") for path in place.glob(f"{pattern}{JOURNAL}")]
    if not found:
        raise BadInput(
            f"There is no {JOURNAL} in {place} or two levels below it: name the folder of a run, as in `advisor "
            "dashboard results/STUDY/RUN`, or its --storage."
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def dashboard_server(view: LedgerView, port: int) -> WSGIServer:
    """A server that is bound; its `serve_forever` answers.

    Raises:
        BadInput: optuna-dashboard is not installed, or the port is taken.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise BadInput("optuna-dashboard is not installed: pip install 'trtllm-advisor[dashboard]'.")
    from optuna_dashboard._app import create_app

    app = reading_only(create_app(view))
    try:
        return make_server(LOOPBACK, port, app, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise BadInput(f"Cannot listen on port {port} of {LOOPBACK} ({why}): choose another with --port.") from None


def reading_only(app: Application) -> Application:
    """The application for GET and HEAD from this machine; everything else is refused before it sees it."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") and is_loopback(environ.get("HTTP_HOST", "")):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [b'{"reason": "This is a view: it is read from this machine, and changes nothing."}']

    return guarded


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """A line a request tells nobody anything."""
