"""Times of single nodes, read from the runtime's profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.backends.onnxruntime.profiling import read_profile
from irtools.errors import UnsupportedError
from irtools.targets import find_target


def _event(name: str, start: int, length: int, op: str = "", index: int = 0) -> dict[str, Any]:
    category = "Node" if op else "Session"
    about = {"op_name": op, "node_index": str(index)} if op else {}
    return {"cat": category, "name": name, "ts": start, "dur": length, "args": about}


def _run(at: int, body: int) -> list[dict[str, Any]]:
    """A run of 100 us: an If of 60 us around a MatMul of `body`, then two nodes without name."""
    return [
        _event("branch_kernel_time", at + 5, 60, "If"),
        _event("inner_kernel_time", at + 10, body, "MatMul", 1),
        _event("_kernel_time", at + 70, 4, "Add", 2),
        _event("_kernel_time", at + 80, 6, "Add", 3),
        _event("_fence_before", at + 4, 1, "If"),
        _event("model_run", at, 100),
    ]


def test_what_runs_inside_a_node_counts_by_itself() -> None:
    events = [*_run(0, 1), *_run(1000, 40), *_run(2000, 50)]
    found = read_profile([_event("session_initialization", 0, 9), *events], runs=2)
    assert found.names == ("branch", "inner", "", "") and found.ops == (
        "If",
        "MatMul",
        "Add",
        "Add",
    )
    np.testing.assert_array_equal(found.microseconds, [[20, 40, 4, 6], [10, 50, 4, 6]])
    np.testing.assert_array_equal(found.totals, [100, 100])


def test_a_profile_without_nodes_or_runs_is_refused() -> None:
    for events, runs in (([_event("model_run", 0, 9)], 1), (_run(0, 1), 2)):
        with pytest.raises(UnsupportedError, match="no times of single nodes"):
            read_profile(events, runs)


def test_a_model_is_profiled_as_the_runtime_runs_it(tmp_path: Path) -> None:
    ir.save(
        ir.from_onnx_text(
            '<ir_version: 10, opset_import: ["" : 20]> g (float[8,8] x, bool c) => (float[8,8] y) {'
            " y = If (c) <then_branch = t () => (float[8,8] a) { a = MatMul (x, x) },"
            " else_branch = e () => (float[8,8] b) { b = Relu (x) }> }"
        ),
        tmp_path / "m.onnx",
    )
    feeds = {"x": np.ones((8, 8), np.float32), "c": np.array(True)}
    found = find_target("ort-cpu").profile(tmp_path / "m.onnx", feeds, 4)
    assert set(found.ops) == {"If", "MatMul"} and found.microseconds.shape == (4, 2)
    assert (found.microseconds >= 0).all() and (found.totals > 0).all()
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
