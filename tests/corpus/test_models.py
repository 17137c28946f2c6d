"""The corpus itself: sound models that run on their inputs, each unlike the others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from .corpus import CORPUS, KINDS
from .models import CorpusModel
from .running import outputs_of


def test_size_of_the_corpus() -> None:
    assert len(CORPUS) >= 60
    assert len({model.name for model in CORPUS}) == len(CORPUS)
    assert {model.kind for model in CORPUS} == set(KINDS)


@pytest.mark.parametrize("model", CORPUS, ids=lambda model: model.name)
def test_model_is_sound_and_runs(model: CorpusModel) -> None:
    built, again = model.make(), model.make()
    onnx.checker.check_model(built.proto)
    assert built.proto.SerializeToString(deterministic=True) == again.proto.SerializeToString(
        deterministic=True
    )
    for feeds in built.feeds:
        for array in outputs_of(built.proto, feeds).values():
            assert array.dtype.kind != "f" or np.all(np.isfinite(array))
            assert array.size
