"""Clean-up never makes a file larger, whatever the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from irtools.model import Model
from irtools.passmanager import PassContext, Pipeline

from .random_models import random_model

GRAPHS = sorted((Path(__file__).parents[1] / "data" / "graphs").glob("*.onnx"))
LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
PASSES = ("cleanup", "cleanup:exact=true", "fold-constants", "lift-constants")


def grown(model: Model, make_context: Callable[..., PassContext]) -> Iterator[str]:
    """Yield the passes after which a model takes more bytes."""
    for text in PASSES:
        copy = model.clone()
        before = copy.to_proto().ByteSize()
        for pass_ in Pipeline(text):
            pass_.run(copy.ir, make_context())
        after = copy.to_proto().ByteSize()
        if after > before:
            yield f"{text}: {before} -> {after}"


@pytest.mark.parametrize("seed", range(24))
def test_random_models(seed: int, make_context: Callable[..., PassContext]) -> None:
    model = random_model(seed).model
    assert isinstance(model, ir.Model)
    assert list(grown(Model(model), make_context)) == []


@pytest.mark.parametrize("path", GRAPHS, ids=lambda p: p.stem)
def test_exports(path: Path, make_context: Callable[..., PassContext]) -> None:
    assert list(grown(Model.load(path), make_context)) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", LIGHT, ids=lambda p: p.stem)
def test_models_of_the_onnx_package(path: Path, make_context: Callable[..., PassContext]) -> None:
    assert list(grown(Model.load(path), make_context)) == []
