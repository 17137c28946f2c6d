"""What every hazard is built of: cases, plain parts, and ways to change them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CANARY = b"CANARY-3f1c9a77e0d24b58"
"""Content of the file outside the model's folder that no output may ever hold."""


Builder = Callable[[Path], Path]


@dataclass(frozen=True)
class Case:
    """A file and what must become of it."""

    name: str
    build: Builder
    expectation: Literal["accept", "refuse"]
    needle: str = ""


FLOAT = TensorProto.FLOAT


def value(name: str, shape: Iterable[object] | None = ("N", 4), kind: int = FLOAT):
    return helper.make_tensor_value_info(name, kind, None if shape is None else list(shape))


def weight(name: str = "w", shape: tuple[int, ...] = (4, 3), dtype: object = np.float32):
    count = int(np.prod(shape))
    array = (np.arange(count) % 7 - 3).astype(dtype).reshape(shape)
    return numpy_helper.from_array(array, name)


def node(op: str, inputs: str, outputs: str, **attributes: object):
    named = [[n if n != "_" else "" for n in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *named, **attributes)


def graph(nodes=None, inputs=None, outputs=None, weights=None, name="g"):
    return helper.make_graph(
        nodes if nodes is not None else [node("MatMul", "x w", "h"), node("Add", "h b", "y")],
        name,
        inputs if inputs is not None else [value("x")],
        outputs if outputs is not None else [value("y", ("N", 3))],
        weights if weights is not None else [weight(), weight("b", (3,))],
    )


def model(
    of: onnx.GraphProto | None = None, *, ir: int = 10, opset: int = 17, functions=(), **more
):
    imports = [helper.make_opsetid(d, v) for d, v in {"": opset, **more}.items()]
    return helper.make_model(
        of or graph(), ir_version=ir, opset_imports=imports, functions=list(functions)
    )


def write(folder: Path, data: bytes | onnx.ModelProto, name: str = "model.onnx") -> Path:
    """Write a model into `folder/model/`, with the canary beside that folder."""
    inner = folder / "model"
    inner.mkdir(parents=True, exist_ok=True)
    (folder / "secret.bin").write_bytes(CANARY * 8)
    path = inner / name
    path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
    return path


def of(make: Callable[[], onnx.ModelProto | bytes], name: str = "model.onnx") -> Builder:
    return lambda folder: write(folder, make(), name)


def edited(edit: Callable[[onnx.ModelProto], object], **options: object) -> Builder:
    """Build the plain model with one thing changed."""

    def build() -> onnx.ModelProto:
        proto = model(**options)
        edit(proto)
        return proto

    return of(build)


def with_graph(**parts: object) -> Builder:
    return of(lambda: model(graph(**parts)))


def accept(name: str, build: Builder) -> Case:
    return Case(name, build, "accept")


def refuse(name: str, build: Builder, needle: str) -> Case:
    return Case(name, build, "refuse", needle)
