"""What the quantizers of other tools have in common, as passes."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx_ir as ir

from irtools.errors import IrtoolsError, OptionError, UnsupportedError
from irtools.model import iter_nodes
from irtools.passes.tools.exchange import hand_over, take_back
from irtools.passes.tools.samples import Feeds, Samples, calibration_samples
from irtools.passmanager import FOLLOWED_GRAPH, Exactness, Pass, PassContext, PassResult

__all__ = ["ToolQuantizer", "matching_nodes", "tool_at_work"]

_ACTIVATIONS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})
_LINEAR = frozenset({"QuantizeLinear", "DequantizeLinear"})
_QUANTIZED = frozenset(
    {
        *_ACTIVATIONS,
        "DequantizeLinear",
        "MatMulInteger",
        "ConvInteger",
        "QLinearMatMul",
        "QLinearConv",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "MatMulNBits",
        "QGemm",
        "QAttention",
        "GatherBlockQuantized",
    }
)
_ERRORS, _WARNINGS = 3, 2
"""Severities as ONNX Runtime counts them; the second is its default."""
_MOST_BITS = 8
_MANY = 16
"""Elements; what is smaller is a scale, a zero point or a shape."""


@dataclass(frozen=True)
class ToolQuantizer(Pass):
    """A quantizer of another tool: a message in, a message out.

    It decides everything by itself, so there is no plan: an accuracy budget keeps its result or
    goes back to the model before it.
    """

    exactness: ClassVar[Exactness] = Exactness.LOSSY
    requires: ClassVar[tuple[str, ...]] = FOLLOWED_GRAPH
    counters: ClassVar[Mapping[str, str]] = {
        "num-quantized-weights": "weights of 8 bits or fewer",
        "num-quantized-activations": "activations that are quantized",
        "num-skipped-already": "models left alone because something in them is quantized",
    }

    @abstractmethod
    def quantized(self, message: onnx.ModelProto, samples: Sequence[Feeds]) -> onnx.ModelProto:
        """Return what the tool makes of a model.

        Args:
            message: The model; may be changed.
            samples: Feeds of one call each; empty where `needs_samples` is False.

        Raises:
            OptionError: An option names what the model does not have.
            UnsupportedError: The tool failed; says with which message.
        """

    def judged(
        self, message: onnx.ModelProto, samples: Sequence[Feeds], ctx: PassContext
    ) -> onnx.ModelProto:
        """As `quantized`, for tools that measure what they make."""
        return self.quantized(message, samples)

    @property
    def needs_samples(self) -> bool:
        """Whether calibration data is asked for at all."""
        return True

    @property
    def opset(self) -> int:
        """Oldest opset in which the tool writes what it makes; 0: any."""
        return 0

    @property
    def most_samples(self) -> int | None:
        """Samples that the tool takes; None: all."""
        return None

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        if any(node.op_type in _QUANTIZED for node in iter_nodes(model)):
            note = f"something in the model is quantized already: {self.name} leaves it alone"
            return PassResult(False, {"num-skipped-already": 1}, (note,))
        message = hand_over(model, self.name, self.opset)
        samples = self._samples(model, ctx)
        made = self.judged(message, samples.feeds, ctx)
        counts = _counts(made)
        if not any(counts.values()):
            return PassResult(False, counts, (f"{self.name} found nothing to quantize",))
        notes = take_back(model, made, self.name)
        return PassResult(True, counts, (*samples.notes, *notes))

    def _samples(self, model: ir.Model, ctx: PassContext) -> Samples:
        if not self.needs_samples:
            return Samples(())
        return calibration_samples(model, ctx, self.name, self.most_samples)


def matching_nodes(message: onnx.ModelProto, patterns: Sequence[str], option: str) -> list[str]:
    """Return the names of the nodes that patterns such as `/encoder/*` choose.

    Raises:
        OptionError: A pattern chooses none.
    """
    names = [node.name for node in message.graph.node if node.name]
    found: dict[str, None] = {}
    for pattern in patterns:
        chosen = fnmatch.filter(names, pattern)
        if not chosen:
            example = f", such as {names[0]!r}" if names else ""
            raise OptionError(f"{option} is {pattern!r}, which no node is called{example}")
        found.update(dict.fromkeys(chosen))
    return list(found)


@contextlib.contextmanager
def tool_at_work(tool: str) -> Iterator[None]:
    """Keep what a tool prints off the output, and say whose error it is when it fails.

    Raises:
        UnsupportedError: The tool failed.
    """
    import onnxruntime

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_ERRORS)  # Of sessions that the tool makes.
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (IrtoolsError, MemoryError):
        raise
    except Exception as error:  # Whatever the tool raises is its own and no bug of ours.
        first = next(iter(str(error).strip().splitlines()), "")
        raise UnsupportedError(f"{tool} failed: {type(error).__name__}: {first}") from error
    finally:
        logging.disable(before)
        onnxruntime.set_default_logger_severity(_WARNINGS)


def _counts(message: onnx.ModelProto) -> dict[str, int]:
    nodes = message.graph.node
    zero_points = {n.input[2] for n in nodes if n.op_type in _LINEAR and len(n.input) > 2}
    weights = sum(
        ir.DataType(w.data_type).bitwidth <= _MOST_BITS and _size(w.dims) >= _MANY
        for w in message.graph.initializer
        if w.data_type not in (onnx.TensorProto.BOOL, onnx.TensorProto.STRING)
        and w.name not in zero_points
    )
    activations = sum(node.op_type in _ACTIVATIONS for node in nodes)
    return {"num-quantized-weights": weights, "num-quantized-activations": activations}


def _size(dims: Sequence[int]) -> int:
    size = 1
    for dim in dims:
        size *= dim
    return size
