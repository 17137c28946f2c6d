"""The tools that agents have, asked as an agent asks: by the protocol."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.background import Jobs
from irtools.files import RootFolder
from irtools.mcp import Tools, make_server

pytestmark = pytest.mark.mcp

_TEXT = (
    '<ir_version: 10, opset_import: ["" : 20]> m (float[batch,8] x) => (float[batch,8] logits) '
    "{ a = Identity(x)  b = Relu(a)  logits = Neg(b) }"
)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    folder = tmp_path_factory.mktemp("agent")
    ir.save(ir.from_onnx_text(_TEXT), folder / "model.onnx")
    np.savez(folder / "data.npz", x=np.eye(8, dtype=np.float32))
    root = RootFolder.of(folder)
    with Jobs(root.path) as jobs:
        yield Tools(root, jobs)


def _ask(tools: Tools, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """Return the answers to calls, one after the other; text of an error where there was one."""
    from mcp import Client

    async def talk() -> list[Any]:
        async with Client(make_server(tools)) as client:
            found = []
            for name, arguments in calls:
                result = await client.call_tool(name, arguments)
                text = result.content[0].text
                found.append(text if result.is_error else result.structured_content)
            return found

    return asyncio.run(talk())


def test_every_tool_explains_itself(tools: Tools) -> None:
    async def names() -> dict[str, str]:
        from mcp import Client

        async with Client(make_server(tools)) as client:
            listed = await client.list_tools()
            return {tool.name: tool.description or "" for tool in listed.tools}

    found = asyncio.run(names())
    assert set(found) == {"inspect", "passes", "optimize", "job", "cancel", "compare", "report"}
    assert all("." in text for text in found.values())


@pytest.mark.slow
def test_an_agent_optimizes_and_reads_the_report(tools: Tools) -> None:
    options = {"effort": "quick", "bench": "none"}
    wanted = {"model": "model.onnx", "output": "small.onnx", "passes": "cleanup"}
    seen, started, ended, report, compared = _ask(
        tools,
        ("inspect", {"model": "model.onnx"}),
        ("optimize", {**wanted, "options": options}),
        ("job", {"job": 1, "wait_seconds": 60}),
        ("report", {"path": "small.report.json"}),
        ("compare", {"first": "model.onnx", "second": "small.onnx", "data": "data.npz"}),
    )
    assert "Identity" in json.dumps(seen)
    assert started["job"] and started["state"] in ("waiting", "running")
    assert ended["state"] == "done", ended["lines"]
    assert "cleanup" in report["result"]
    assert compared["outputs"]


def test_what_cannot_be_done_is_one_line(tools: Tools) -> None:
    outside, missing, unknown, broken = _ask(
        tools,
        ("inspect", {"model": "../../etc/passwd"}),
        ("report", {"path": "none.json"}),
        ("job", {"job": 99}),
        ("inspect", {"model": "data.npz"}),
    )
    assert "outside" in outside and "there is no none.json" in missing
    assert "there is no job 99" in unknown and "Traceback" not in broken


@pytest.mark.slow
def test_a_job_is_cancelled(tools: Tools) -> None:
    wanted = {"model": "model.onnx", "output": "never.onnx", "passes": "cleanup"}
    (started,) = _ask(tools, ("optimize", wanted))
    job = started["job"]
    cancelled, ended = _ask(
        tools, ("cancel", {"job": job}), ("job", {"job": job, "wait_seconds": 30})
    )
    assert started["state"] in ("waiting", "running")
    assert cancelled["state"] == "cancelled" and ended["state"] == "cancelled"


def test_passes_are_listed_without_importing_them(tools: Tools) -> None:
    listed, int8, wrong = _ask(
        tools, ("passes", {}), ("passes", {"name": "int8"}), ("passes", {"name": "int9"})
    )
    assert {"int8", "prune"} <= set(listed["passes"])
    assert any(option["name"] == "mode" for option in int8["options"])
    assert "int9" in wrong and "int8" in wrong


def test_the_command_answers_on_stdio(tmp_path: Path) -> None:
    from mcp import Client, StdioServerParameters

    command = [sys.executable, "-m", "irtools.cli.main", "mcp", str(tmp_path)]

    async def talk() -> list[str]:
        async with Client(StdioServerParameters(command=command[0], args=command[1:])) as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    assert "optimize" in asyncio.run(talk())
