"""The server: its tools, and what it says of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from irtools.errors import IrtoolsError, MissingExtraError
from irtools.mcp.tools import Tools
from irtools.version import __version__

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

__all__ = ["make_server"]

_INSTRUCTIONS = """irtools makes ONNX models smaller and faster, and measures what that costs.
All paths are relative to one folder. Start with `inspect`; run `optimize` with a representative
`calibrate` and a labelled `evaluate` file, and a budget such as {"max-drop": "1%"}; it answers with
a job. Ask `job` until its state is done, failed or cancelled; read `report` for the figures. One
job runs at a time, because two would spoil each other's measurements."""


def make_server(tools: Tools) -> MCPServer:
    """Return the server of some tools; `run` answers on stdin and stdout.

    Raises:
        MissingExtraError: `mcp` is not installed.
    """
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp_types import ToolAnnotations
    except ImportError as error:
        raise MissingExtraError("irc mcp", "mcp") from error

    server = MCPServer(
        "irtools", instructions=_INSTRUCTIONS, version=__version__, log_level="WARNING"
    )
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    writes = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
    chosen: tuple[tuple[Callable[..., Any], ToolAnnotations], ...] = (
        (tools.inspect, reads),
        (tools.passes, reads),
        (tools.optimize, writes),
        (tools.job, reads),
        (tools.cancel, writes),
        (tools.compare, reads),
        (tools.report, reads),
    )
    for function, hints in chosen:
        server.add_tool(_explained(function, ToolError), annotations=hints)
    return server


def _explained(function: Callable[..., Any], failure: type[Exception]) -> Callable[..., Any]:
    """Return a tool whose errors an agent reads as one line; others count as bugs."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except IrtoolsError as error:
            raise failure(str(error)) from error

    return call
