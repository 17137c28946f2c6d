"""A worker process of the local executor: says what it is, then answers jobs until told to end."""

from __future__ import annotations

import ctypes
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from irtools.errors import IrtoolsError
from irtools.executors.base import Service, make_service, worker_here

__all__ = ["answered", "main"]

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve the connection whose file descriptor is the first argument."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Ctrl-C reaches the parent as well, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    sys.path[:] = connection.recv()
    spec = connection.recv()
    connection.send(worker_here())
    service: Service | None = None
    while True:
        try:
            (payload,) = connection.recv()
        except (EOFError, ValueError):
            break
        service, answer = answered(spec, service, payload)
        connection.send(answer)
    if service is not None:
        service.close()


def answered(spec: Any, service: Service | None, payload: Any) -> tuple[Service | None, Any]:
    """Answer a job.

    Returns:
        The service, made where there was none, and (kind of error or None, answer or message).
    """
    try:
        service = service or make_service(spec)
        return service, (None, service.answer(payload))
    except IrtoolsError as error:
        return service, (type(error).__name__, str(error))
    except Exception as error:  # The edge of the process: the parent raises it again.
        return service, ("", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
