"""Fresh exports: positions that are looked up by distance, and decoders without a cache."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from irtools.data import put_at_padding
from irtools.model import Model, padded_outputs
from irtools.passmanager import PassContext, Pipeline
from irtools.passmanager.manager import PassManager
from irtools.targets import RunnerOptions

from .conftest import decibels

pytestmark = pytest.mark.torch
EXACT = 110.0
MASKS = {
    "after": [[1, 1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]],
    "in front": [[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1]],
}


@cache
def families() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[3]))
    try:
        from benchmarks import families as module
    finally:
        sys.path.pop(0)
    return module


@cache
def exported(name: str) -> Model:
    return Model(families().export(name, families().EXPORTERS["TorchScript 17"]))


@pytest.mark.parametrize("order", ["unpad", "cleanup,fuse,unpad"])
@pytest.mark.parametrize(("name", "products"), [("DeBERTa-v2", 12), ("GPT-2", 8), ("Llama", 15)])
def test_tokens_keep_their_numbers(
    name: str, products: int, order: str, make_context: Callable[..., PassContext]
) -> None:
    before, ctx = exported(name), make_context("ort-cpu")
    last = PassManager(Pipeline.parse(order), ()).run(before, ctx)[-1]
    assert last.result is not None
    assert last.result.counters["num-unpadded-products"] == products
    after = last.model
    ids = np.random.default_rng(0).integers(3, families().VOCABULARY, (3, 7))
    for mask in MASKS.values():
        feeds = {"input_ids": ids, "attention_mask": np.array(mask)}
        expected, found = (
            ctx.runner(model.ir, RunnerOptions(threads=1, exact=True)).run(feeds)
            for model in (before, after)
        )
        noted = padded_outputs(after.ir)
        assert set(noted) == set(expected)
        for output, array in put_at_padding(expected, feeds, noted).items():
            assert decibels(array, found[output]) >= EXACT
