"""Which calibration samples judge a quantized model: some that nothing was fitted to.

Ranges cover every value that they come from, scales make the channels of these samples alike, and
GPTQ lets their errors cancel. On samples that were not among them all three lose more, most where
they were few. What is taken is therefore decided on samples that statistics did not see.
"""

from __future__ import annotations

import numpy as np

from irtools.data import Dataset
from irtools.passmanager import PassContext

__all__ = ["hold_out"]

_SHARE = 4
"""One sample in so many is held out."""
_MOST = 16
_FEWEST = 8
"""Samples from which on some are held out."""


def hold_out(ctx: PassContext) -> PassContext:
    """Return a context that holds a quarter of the caller's samples out, 16 at most.

    They are spread over the data, and whole batches where a model has a fixed batch size. Where
    there are fewer than 8 samples, or they were drawn, or some are held out already, it is the same
    context.
    """
    data = ctx.calibration
    if data is None or data.synthetic or ctx.unseen is not None or len(data) < _FEWEST:
        return ctx
    rows = _rows(data)
    return ctx.holding_out(rows) if len(rows) else ctx


def _rows(data: Dataset) -> np.ndarray:
    batch = data.fixed_batch or 1
    batches = len(data) // batch
    count = min(batches // _SHARE, max(_MOST // batch, 1))
    first = (2 * np.arange(count) + 1) * batches // (2 * max(count, 1)) * batch
    return (first[:, None] + np.arange(batch)).ravel()
