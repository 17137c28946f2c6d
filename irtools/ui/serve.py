"""Serving on the loopback interface, until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

from irtools.errors import FileError, MissingExtraError
from irtools.files import RootFolder

__all__ = ["serve"]

_HOST = "127.0.0.1"
_TOKEN_BYTES = 24


def serve(root: RootFolder, port: int, announce: Callable[[str], None]) -> None:
    """Serve a folder until the process is asked to end; all children end with it.

    Args:
        root: The folder.
        port: Where to listen; 0: any free port.
        announce: Called with the address, which holds the token after its #: browsers do not
            send that part, so it is in no log.

    Raises:
        MissingExtraError: The extra `ui` is not installed.
        FileError: The port is in use.
    """
    try:
        import jinja2  # noqa: F401
        import psutil  # noqa: F401
        import uvicorn

        from irtools.ui.app import make_app
        from irtools.ui.guard import Access
        from irtools.ui.state import UiState
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("irtools"):
            raise
        raise MissingExtraError("irc ui", "ui") from error

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
        except OSError as error:
            raise FileError(f"cannot listen on {_HOST}:{port}: {error.strerror}") from error
        access = Access(secrets.token_urlsafe(_TOKEN_BYTES), listener.getsockname()[1])
        config = uvicorn.Config(
            make_app(UiState(root), access),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        listener.listen(256)
        announce(f"http://{_HOST}:{access.port}/#token={access.token}")
        uvicorn.Server(config).run(sockets=[listener])
