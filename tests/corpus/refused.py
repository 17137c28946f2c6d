"""Models that cannot be run here: for each, the line that is right."""

from __future__ import annotations

import numpy as np

from .models import Refusal, Register
from .writer import Built, Writer

MODELS = Register("refused")

PIPELINES = ("prune,int8", "int4", "fp16")


def _always(phrase: str) -> dict[str, Refusal]:
    return dict.fromkeys(PIPELINES, Refusal(4, phrase))


@MODELS.add(refusals=_always("Swirl"))
def operator_of_another_runtime() -> Built:
    w = Writer("operator_of_another_runtime", 15)
    x = w.input("x", ("batch", 160), w.normal(2, 160))
    value = w.node("Swirl", w.linear(x, 160, 160), domain="com.acme.ops", angle=0.5)
    w.output(w.linear(value, 160, 10), ("batch", 10))
    return w.build()


@MODELS.add(refusals=_always("LSTM"))
def recurrent_with_batch_first() -> Built:
    """`layout=1` is in the standard and not in the runtime."""
    w = Writer("recurrent_with_batch_first", 14)
    x = w.input("x", ("batch", "time", 64), w.normal(2, 5, 64))
    weights = [w.const(w.normal(1, 320, n, scale=0.1), "W") for n in (64, 80)]
    y = w.node("LSTM", x, *weights, hidden_size=80, layout=1)
    w.output(w.linear(y, 80, 10), ("batch", "time", 1, 10))
    return w.build()


def sizes_that_never_fit() -> Built:
    """The kernel is larger than what is cut out for it: the model fails on every input.

    Only the batch is open: there are few sizes to be tried, all in vain.
    """
    w = Writer("sizes_that_never_fit", 13)
    x = w.input("x", ("batch", 3, 8, 8), np.zeros((1, 3, 8, 8), np.float32))
    small = w.node("Slice", x, w.ints(0, 0), w.ints(4, 4), w.ints(2, 3))
    w.output(w.conv(w.node("Identity", small), 3, 64, 9, 9), ("batch", 64, "h", "w"))
    return w.build()
