"""The same command gives the same bytes, whatever the process, its hash seed and its folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def write_model(path: Path) -> None:
    """Two layers with shared pieces, so that every pass has something to name and to order."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / 8, name)
        for name, shape in {
            "w1": (64, 512),
            "b1": (512,),
            "w2": (512, 64),
            "copy": (64, 512),
        }.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h1"]),
        helper.make_node("Add", ["h1", "b1"], ["h2"]),
        helper.make_node("Relu", ["h2"], ["h3"]),
        helper.make_node("Relu", ["h2"], ["h4"]),
        helper.make_node("Add", ["h3", "h4"], ["h5"]),
        helper.make_node("Identity", ["h5"], ["h6"]),
        helper.make_node("MatMul", ["h6", "w2"], ["y"]),
        helper.make_node("MatMul", ["x", "copy"], ["dead"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        weights,
    )
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)


def digest(model: Path, passes: str, folder: Path, hash_seed: str) -> str:
    folder.mkdir()
    command = ["optimize", str(model), "-p", passes, "--no-bench", "-o", "out.onnx"]
    subprocess.run(
        [sys.executable, "-m", "irtools.cli.main", *command],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        check=True,
        capture_output=True,
        timeout=120,
    )
    return hashlib.sha256((folder / "out.onnx").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "passes",
    [
        "prune:ratio=0.25,int8",
        pytest.param("cleanup,fuse,int8", marks=pytest.mark.slow),
        pytest.param("cleanup,int8:mode=static", marks=pytest.mark.slow),
    ],
)
def test_same_bytes_in_another_process(passes: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx")
    first = digest(tmp_path / "model.onnx", passes, tmp_path / "a", "1")
    assert digest(tmp_path / "model.onnx", passes, tmp_path / "another", "2") == first
