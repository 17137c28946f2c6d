"""What fires on fresh exports of each family is what docs/fusion.md says, and the numbers stay."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

ROOT = Path(__file__).parents[3]
Fuse = Callable[..., Any]

QUICK = [("Llama with cache", "eager, TorchScript 14"), ("DeBERTa-v2", "TorchScript 17")]
TORCHSCRIPT = ("TorchScript 17", "eager, TorchScript 14")
SIZES = ((1, 4, 0), (2, 7, 5), (3, 5, 3), (2, 1, 6))
"""Batch, length and past: prefill, continuations, and the decoding of one token."""

pytestmark = pytest.mark.torch


@cache
def families() -> ModuleType:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import families as module
    finally:
        sys.path.pop(0)
    return module


@cache
def exported(name: str, exporter: str) -> ir.Model:
    return families().export(name, families().EXPORTERS[exporter])


@cache
def documented() -> Mapping[tuple[str, str], str]:
    lines = (ROOT / "docs" / "fusion.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    return {tuple(cell.strip() for cell in row.split("|")[1:3]): row for row in rows}  # type: ignore[misc]


def feeds_for(model: ir.Model, batch: int, length: int, past: int) -> dict[str, np.ndarray]:
    """Random inputs; rows end in padding, or begin with it before a cache; one row is padding."""
    rng = np.random.default_rng(batch)
    names = [value.name for value in model.graph.inputs]
    cached = any(name.startswith("past") for name in names)
    feeds = {}
    for value in model.graph.inputs:
        assert value.name is not None and value.shape is not None
        sequence = 9 if value.name.startswith("encoder") else length
        if value.name.startswith("past"):
            sequence = past
        elif value.name == "attention_mask" and cached:
            sequence = past + length
        free = iter((batch, sequence))
        shape = [dim if isinstance(dim, int) else next(free) for dim in value.shape]
        if value.name == "input_ids":
            feeds[value.name] = rng.integers(3, families().VOCABULARY, shape)
        elif "mask" in value.name:
            mask = np.ones(shape, np.int64)
            padded = slice(0, shape[1] // 2) if cached else slice(max(1, shape[1] // 2), None)
            mask[-1, padded] = 0
            mask[0] = 0 if batch > 2 else 1
            feeds[value.name] = mask
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
    return feeds


def check(name: str, exporter: str, fuse: Fuse) -> None:
    fused = fuse(exported(name, exporter), "cleanup,fuse")
    found = families().counted(fused.after)
    assert families().row(name, exporter, found) == documented()[name, exporter]
    assert "did not fuse" not in fused.notes
    if name.startswith("DeBERTa"):
        assert fused.count("GatherElements") == 0
    for sizes in SIZES:
        assert fused.error(feeds_for(fused.before, *sizes)) <= 1e-5


@pytest.mark.parametrize(("name", "exporter"), QUICK)
def test_as_documented(name: str, exporter: str, fuse: Fuse) -> None:
    check(name, exporter, fuse)


@pytest.mark.openvino
@pytest.mark.parametrize(("name", "exporter"), QUICK[1:])
def test_same_answers_in_openvino(name: str, exporter: str, fuse: Fuse) -> None:
    fused = fuse(exported(name, exporter), "cleanup,fuse", "openvino-cpu")
    for sizes in SIZES[1:]:
        assert fused.error(feeds_for(fused.before, *sizes), "openvino-cpu") <= 1e-5


REST = [
    (name, exporter)
    for name in families().FAMILIES
    for exporter in TORCHSCRIPT
    if (name, exporter) not in QUICK and name != "Whisper decoder"
]
DYNAMO = [("Llama with cache", "dynamo 20"), ("Llama with cache", "dynamo 23")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter"), [*REST, *DYNAMO[:1]])
def test_all_as_documented(name: str, exporter: str, fuse: Fuse) -> None:
    check(name, exporter, fuse)


def test_every_family_and_exporter_is_documented() -> None:
    expected = {(name, e) for name in families().FAMILIES for e in families().EXPORTERS}
    assert expected <= set(documented())


def test_a_cache_goes_in_as_past_and_comes_out_as_present(fuse: Fuse) -> None:
    fused = fuse(exported(*QUICK[0]), "cleanup,fuse,cleanup")
    for node in fused.after.graph:
        if node.op_type == "Attention":
            assert [v.name.rpartition("_")[0] for v in node.inputs[4:]] == [
                "past_key",
                "past_value",
            ]
            assert all(value.is_graph_output() for value in node.outputs[1:])
    assert [fused.count(op) for op in ("Expand", "Transpose", "Concat")] <= [4, 0, 4]
