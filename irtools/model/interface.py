"""What callers of a model rely on: its inputs, outputs and metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from irtools.errors import DataError

__all__ = ["Interface", "ValueInfo"]

_PLAIN = re.compile(r"[\w./:\-]+", re.ASCII)
_NAME = r'"(?:[^"\\]|\\.)*"'
_TEXT = re.compile(rf"({_NAME}|\S+): ([^\[\]]*)(?:\[(.*)\])?", re.DOTALL)
_SIZE = re.compile(rf"({_NAME}|[^,]+)(?:, |$)")


@dataclass(frozen=True)
class ValueInfo:
    """Name, element type and shape of an input or output.

    Attributes:
        dtype: `float32`, `int64`, `bfloat16`, `string` ...; `seq(float32)` and `optional(...)`
            for the other types; empty where the model does not say.
        shape: Sizes; a name or None where dynamic; None where the rank is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    @classmethod
    def of(cls, value: ir.Value) -> ValueInfo:
        """Describe a value."""
        shape = None if value.shape is None else tuple(_size(dim) for dim in value.shape)
        return cls(value.name or "", type_text(value.type), shape)

    @classmethod
    def parse(cls, text: str) -> ValueInfo:
        """Read what `str` wrote: `input_ids: int64[batch, 128]`.

        Raises:
            DataError: It is not such a text.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise DataError(f"{text!r} is not an input or output as NAME: TYPE[SIZES]")
        name, dtype, sizes = found.groups()
        shape = None if sizes is None else tuple(map(_read_size, _SIZE.findall(sizes)))
        return cls(_unquoted(name), dtype, shape)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{quote_name(self.name)}: {self.dtype}"
        sizes = ", ".join(_size_text(size) for size in self.shape)
        return f"{quote_name(self.name)}: {self.dtype}[{sizes}]"


@dataclass(frozen=True)
class Interface:
    """What callers of a model rely on.

    Attributes:
        inputs: Inputs in order, those with a default included.
        outputs: Outputs in order.
        overridable: Names of the inputs that have a default, which is an initializer.
        metadata: The model's own properties.
    """

    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    overridable: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ir.Model) -> Interface:
        """Read the interface of a model."""
        graph = model.graph
        return cls(
            tuple(ValueInfo.of(value) for value in graph.inputs),
            tuple(ValueInfo.of(value) for value in graph.outputs),
            tuple(v.name or "" for v in graph.inputs if v.name in graph.initializers),
            dict(model.metadata_props),
        )

    @property
    def required(self) -> tuple[ValueInfo, ...]:
        """The inputs that have no default."""
        return tuple(info for info in self.inputs if info.name not in self.overridable)


def quote_name(name: str) -> str:
    """Print a name as it is, or in quotes with escapes where it holds anything unusual."""
    return name if _PLAIN.fullmatch(name) else json.dumps(name)


def type_text(kind: ir.TypeProtocol | None) -> str:
    """Print a type: `float32`, `seq(int64)`, `optional(seq(float16))`, `sparse(float32)`."""
    match kind:
        case None:
            return ""
        case ir.TensorType():
            return dtype_text(kind.dtype)
        case ir.SparseTensorType():
            return f"sparse({dtype_text(kind.dtype)})"
        case ir.SequenceType():
            return f"seq({type_text(kind.elem_type)})"
        case ir.OptionalType():
            return f"optional({type_text(kind.elem_type)})"
        case _:
            return str(kind)


def dtype_text(dtype: ir.DataType) -> str:
    """Name an element type as numpy and ml_dtypes do: `float32`, `bfloat16`, `int4`."""
    match dtype:
        case ir.DataType.FLOAT:
            return "float32"
        case ir.DataType.DOUBLE:
            return "float64"
        case _:
            return dtype.name.lower()


def _size_text(size: int | str | None) -> str:
    match size:
        case None:
            return "?"
        case str():
            return quote_name(size)
        case _:
            return str(size)


def _size(dim: int | ir.SymbolicDim) -> int | str | None:
    return dim if isinstance(dim, int) else dim.value


def _unquoted(name: str) -> str:
    return str(json.loads(name)) if name.startswith('"') else name


def _read_size(text: str) -> int | str | None:
    if text == "?":
        return None
    return int(text) if text.isdecimal() else _unquoted(text)
