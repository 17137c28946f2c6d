"""Runs data through an encoder and keeps one feature vector per sample and boundary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.data import Dataset, padding_mask, plan_batches, required_inputs
from irtools.passes.exits.encoder import Boundary, Encoder
from irtools.passes.exits.heads import Pool
from irtools.passmanager import PassContext
from irtools.statistics import expose
from irtools.targets import RunnerOptions

__all__ = ["Features", "collect", "pool_states"]

_BATCH = 16


@dataclass(frozen=True, eq=False)
class Features:
    """What the samples look like from inside.

    Attributes:
        pooled: Per boundary: pooling to float32 [N, H].
        logits: The whole model's scores, float32 [N, C].
    """

    pooled: Sequence[Mapping[Pool, np.ndarray]]
    logits: np.ndarray


def collect(
    model: ir.Model,
    encoder: Encoder,
    boundaries: Sequence[Boundary],
    data: Dataset,
    ctx: PassContext,
    pools: Sequence[Pool],
) -> Features:
    """Run every sample once; of the hidden states only pooled vectors are kept.

    Raises:
        DataError: The data does not fit the model.
    """
    names = [str(boundary.value.name) for boundary in boundaries]
    score = str(encoder.output.name)
    plan = plan_batches(data, required_inputs(model), skip_empty=False)
    found: dict[tuple[int, Pool], np.ndarray] = {}
    logits: np.ndarray | None = None
    done = 0
    with ctx.runner(expose(model, names).model, RunnerOptions()) as runner:
        for batch in plan.batches(_BATCH):
            outputs = runner.run(batch.feeds, [*names, score])
            if logits is None:
                logits = np.empty((len(data), outputs[score].shape[1]), np.float32)
            logits[batch.rows] = outputs[score]
            mask = padding_mask(batch.feeds)
            for index, name in enumerate(names):
                for pool in pools:
                    vectors = pool_states(outputs[name], mask, pool)
                    kept = found.get((index, pool))
                    if kept is None:
                        kept = np.empty((len(data), vectors.shape[1]), np.float32)
                        found[index, pool] = kept
                    kept[batch.rows] = vectors
            done += batch.samples
            ctx.progress.step("features of exits", done, len(data))
    assert logits is not None
    pooled = [{pool: found[index, pool] for pool in pools} for index in range(len(names))]
    return Features(pooled, logits)


def pool_states(states: np.ndarray, mask: np.ndarray | None, pool: Pool) -> np.ndarray:
    """Return [B, H] of hidden states [B, S, H], as the exits in the graph do."""
    if pool == "first":
        return states[:, 0]
    if mask is None:
        return np.asarray(states.mean(axis=1))
    weights = mask.astype(np.float32)
    total = (states * weights[:, :, None]).sum(axis=1)
    return np.asarray(total / np.maximum(weights.sum(axis=1, keepdims=True), 1))
