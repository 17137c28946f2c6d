"""What tests of several families of passes share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest


@pytest.fixture(scope="session")
def encoder_feeds() -> Callable[..., dict[str, np.ndarray]]:
    """Makes feeds of the committed exports: token ids with padded ends, or pixels."""

    def make(
        model: ir.Model, batch: int, length: int, *, seed: int = 0, padded_row: bool = False
    ) -> dict[str, np.ndarray]:
        """Return feeds; with `padded_row` the last of three rows or more is padding throughout."""
        rng = np.random.default_rng(seed)
        feeds: dict[str, np.ndarray] = {}
        for value in model.graph.inputs:
            assert value.name is not None and value.shape is not None
            if value.name == "input_ids":
                feeds[value.name] = rng.integers(3, 50, (batch, length))
            elif value.name == "attention_mask":
                ends = rng.integers(1, length + 1, (batch, 1))
                ends[-1] = 0 if padded_row and batch > 2 else ends[-1]
                feeds[value.name] = (np.arange(length) < ends).astype(np.int64)
            else:
                shape = [dim if isinstance(dim, int) else batch for dim in value.shape]
                feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
        return feeds

    return make
