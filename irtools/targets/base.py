"""What a target and a runner are. Implementations live in `irtools.backends`.

Passes read a target's `Capabilities`; they never name a runtime.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np

from irtools.errors import OptionError, UnsupportedError
from irtools.targets.isa import Isa

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.model import Model
    from irtools.targets.signature import Feeds, InputSlot

__all__ = [
    "Artifact",
    "Capabilities",
    "Companions",
    "KernelReport",
    "NodeTimes",
    "Runner",
    "RunnerOptions",
    "Target",
]


_BLOCKS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Capabilities:
    """What a target runs, and runs fast. A table, not code.

    Attributes:
        max_opset: Newest ai.onnx opset that the runtime promises.
        max_ir_version: Newest ONNX IR version that it reads.
        int8_static_ops: Operators that run as int8 between QDQ with static ranges.
        int8_conv_to_float: A Conv whose result is read in float32 runs in int8 all the same.
        int8_activation: Activation form that is fast: `u8-affine`, `s8-symmetric`.
        int8_clips: Operators after a Conv that the runtime takes into the quantization of their
            result, so that a range of what comes after them is enough.
        int8_fuses_add: A MatMul with a countable number of rows and the Add after it become one
            Gemm, which is int8 only with an int32 bias. With unknown sizes in front a float bias is
            better: it fuses with the activation function or the residual after it.
        int8_zero_points: Zero points of weights are written out where Gemm, Conv and what becomes a
            Gemm are int8 only with them. A plain MatMul needs none, and no correction per column.
        int8_vectors: A vector times a matrix, x [K] @ W [K, N], has the shape [N] in int8 too.
        int8_dynamic: The runtime is fast on dynamically quantized MatMuls.
        int8_token_blocks: Products by 8-bit weights in blocks are multiplied in integers:
            the kernel quantizes activations for each token and block.
        int8_recurrent: Recurrent operators whose weights, stored in 8 bits, the target multiplies
            in integers by activations that are quantized at run time.
        saturates_u8s8: Sums of two u8 x s8 products may saturate in 16 bits (no VNNI), so weights
            are scaled such that none does (`reduce-range`).
        int8_is_fast: int8 products are faster than float32 ones; else weights are only stored in
            8 bits unless a mode is asked for.
        hides_stored_codes: Codes of stored weights are cast to a wider type before float32 where a
            runtime may keep them instead: integers, to take their scales as those of other elements
            (in a Gather along an inner axis, a product of constants, a weight that changes its
            shape on its way), and floats of 8 bits, to expand them at each run.
        stored_types: Types that weights may be stored in, because the runtime expands a Cast and a
            Mul of them when it loads the model.
        compute_dtypes: Floating types in which GEMMs really run fast.
        fused_ops: Fused operators that run at least as fast as their parts, as
            `domain::op` (`ai.onnx::Attention`, `com.microsoft::SkipLayerNormalization`).
        weight_formats: Formats of weights below 8 bits that are multiplied as they are (`int4`,
            `nf4`); others would be expanded when the model is loaded.
        block_kernels: Bits and block sizes of weights in blocks of integers that are multiplied as
            they are; others would be expanded at each run.
        exact_block_bits: Bits of such weights whose kernels round activations to 8 bits on the way,
            but leave them in float32 where a weight asks for it.
        gather_dequantizes_table: A DequantizeLinear in front of a Gather expands the whole
            table at each run, so embeddings are gathered first and dequantized after.
        empty_attention: Fused attention runs on a batch of no text, and gives nothing.
        compiles_shapes: Kernels are made for each shape of tensors when it first comes, so that few
            shapes are faster than many.
        shares_cache: Attention may write new keys and values of a decoder into the buffer that
            holds its cache, in place of copying the whole.
        cache_bits: Bits of keys and values in which the runtime can keep the cache of a decoder.
        scales_cache: It rounds keys and values itself, with scales that it chooses at run time.
    """

    max_opset: int = 23
    max_ir_version: int = 13
    int8_static_ops: frozenset[str] = frozenset()
    int8_conv_to_float: bool = False
    int8_activation: Literal["u8-affine", "s8-symmetric"] = "u8-affine"
    int8_clips: frozenset[str] = frozenset({"Relu", "Clip"})
    int8_fuses_add: bool = True
    int8_zero_points: bool = True
    int8_vectors: bool = False
    int8_dynamic: bool = False
    int8_token_blocks: bool = False
    int8_recurrent: frozenset[str] = frozenset()
    saturates_u8s8: bool = False
    int8_is_fast: bool = True
    hides_stored_codes: bool = True
    stored_types: frozenset[str] = frozenset({"int8", "float16"})
    compute_dtypes: frozenset[str] = frozenset({"float32"})
    fused_ops: frozenset[str] = frozenset()
    weight_formats: frozenset[str] = frozenset({"int4"})
    block_kernels: frozenset[tuple[int, int]] = frozenset(product((4, 8), _BLOCKS))
    exact_block_bits: frozenset[int] = frozenset()
    gather_dequantizes_table: bool = False
    empty_attention: bool = False
    compiles_shapes: bool = False
    shares_cache: bool = False
    cache_bits: frozenset[int] = frozenset()
    scales_cache: bool = False

    def runs_fused(self, op: str, domain: str = "ai.onnx") -> bool:
        """Whether a fused operator is worth making for this target."""
        return f"{domain}::{op}" in self.fused_ops


@dataclass(frozen=True)
class RunnerOptions:
    """How a model is run.

    Attributes:
        threads: Threads within one operator; None leaves it to the runtime.
        exact: Run what the model says and nothing cleverer: graph optimizations off, float32
            arithmetic, no hidden activation quantization. For comparing numbers.
        precision: Inference precision where the runtime offers a choice (`f32`, `bf16`); None
            is the runtime's default.
        optimizations: How far the runtime's own optimizations go, where it has levels of them;
            `basic` and `off` are for models that it breaks with `all`. `exact` implies `off`.
        frugal: Prefer little memory to speed: weights of gigabytes are read as they are in their
            files, without a copy in the layout of the runtime's kernels.
    """

    threads: int | None = None
    exact: bool = False
    precision: str | None = None
    frugal: bool = False
    optimizations: Literal["all", "basic", "off"] = "all"


@dataclass(frozen=True)
class KernelReport:
    """Kernels that the runtime really chose, counted after compilation.

    Attributes:
        counts: Kernel or node type of the compiled model to number
            (`MatMulIntegerToFloat: 72`, `FullyConnected[u8]: 72`).
        int8: Compute nodes that run in int8.
        float_fallbacks: Nodes meant to be int8 that run in floating point, by name.
        fused_attention: Attention blocks that run as one kernel.
        providers: Execution provider to number of nodes, where the runtime has several.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    int8: int = 0
    float_fallbacks: tuple[str, ...] = ()
    fused_attention: int = 0
    providers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeTimes:
    """How long each node of a compiled model took, run by run.

    Attributes:
        names: Node of the compiled model; fusion makes one of several of the model's.
        ops: Its operator or kernel (`MatMulIntegerToFloat`, `FullyConnected[u8]`).
        microseconds: [runs, nodes], of the node alone: nodes inside its bodies count by themselves.
        totals: [runs], microseconds of the whole run.
    """

    names: tuple[str, ...]
    ops: tuple[str, ...]
    microseconds: np.ndarray
    totals: np.ndarray


class Runner(Protocol):
    """A compiled model that can be run. A context manager; `close` frees it."""

    @property
    def slots(self) -> Sequence[InputSlot]:
        """What it takes: names, types and shapes of the inputs."""

    @property
    def input_names(self) -> Sequence[str]: ...

    @property
    def output_names(self) -> Sequence[str]: ...

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            feeds: Input name to array; shapes as in the model's signature.
            outputs: Names wanted; None for all.

        Raises:
            DataError: Feeds that do not fit, naming the input and both shapes or types.
        """

    def kernels(self) -> KernelReport: ...

    def close(self) -> None: ...

    def __enter__(self) -> Runner: ...

    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True)
class Artifact:
    """Files that a target made of a model."""

    files: tuple[Path, ...]
    kernels: KernelReport
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Companions:
    """Files that were written next to a model.

    Attributes:
        names: Their names.
        notes: What could not be written, and why.
    """

    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target(ABC):
    """A runtime on a device, and what it runs fast.

    Attributes:
        isa: Instruction set to decide by: the machine's own, or one set with `isa=` when the
            model is built for another machine.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    """Suffixes of what `compile` can write, the default first. The target's runner reads them."""

    unproven_formats: ClassVar[frozenset[str]] = frozenset()
    """Those that the runtime is known to compute wrongly of some models: what was written is
    compared with the model before anybody sees it."""

    widening: ClassVar[str] = ""
    """What a user sets in the runtime to have products of 8-bit weights summed exactly on CPUs
    without VNNI, in words; empty where there is no such thing."""

    isa: Isa = field(default_factory=Isa.detect)

    @property
    def runs_here(self) -> bool:
        """Whether this machine is such a one as the target, so that times taken here are its."""
        return self.isa is Isa.detect()

    @abstractmethod
    def check_available(self) -> None:
        """Raise where this machine cannot run the target.

        Raises:
            TargetUnavailableError: Says what is missing and what to install.
        """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities: ...

    @abstractmethod
    def lower(self, model: ir.Model) -> Mapping[str, int]:
        """Rewrite `model` in place into forms that only this target understands.

        Returns:
            Counts of what was rewritten, by name of the form.
        """

    @abstractmethod
    def runner(self, model: Model | Path, options: RunnerOptions = RunnerOptions()) -> Runner:
        """Compile a model in this process as it is (not lowered) and return its runner.

        Raises:
            UnsupportedError: The runtime refuses the model; names the operator.
        """

    def kernels(
        self, model: Model | Path, options: RunnerOptions = RunnerOptions()
    ) -> KernelReport:
        """Compile a model as it is, and count what the runtime chose.

        Raises:
            UnsupportedError: The runtime refuses the model; names the operator.
        """
        with self.runner(model, options) as runner:
            return runner.kernels()

    @abstractmethod
    def compile(
        self, model: Model, directory: Path, stem: str, *, format: str | None = None
    ) -> Artifact:
        """Lower a copy of the model and write what a deployment loads.

        Args:
            model: The model.
            directory: Where to; made if absent.
            stem: Name of the files without suffix.
            format: One of `formats`; None: the first.

        Raises:
            OptionError: The target has no such format.
            UnsupportedError: The runtime refuses the model; names the operator.
        """

    def folder_stem(self, model: Model, usual: str) -> str:
        """Return the name, without suffix, of the main file of a folder.

        Runtimes with a generation of their own look for a decoder under a fixed name.
        """
        return usual

    def complete_folder(self, model: Model, main: Path) -> Companions:
        """Write what the runtime's own generation needs next to a model that writes text.

        Args:
            model: The model, not lowered.
            main: Its file; tokenizer and configuration are next to it.

        Raises:
            FileError: A file there cannot be read.
        """
        return Companions()

    def as_run(self, model: Model | Path) -> Model | Path:
        """Return the model in the form in which it computes what it says on this machine.

        `runner` does it by itself. Who times a start has it done before: none in deployment does.
        """
        return model

    def choose_format(self, wanted: str | None) -> str:
        """Return the format to write.

        Raises:
            OptionError: The target has no such format.
        """
        if wanted is not None and wanted not in self.formats:
            raise OptionError(
                f"target {self.name!r} writes no .{wanted}, only "
                f"{' or '.join('.' + known for known in self.formats)}"
            )
        return wanted or self.formats[0]

    def profile(
        self, model: Path, feeds: Feeds, runs: int, options: RunnerOptions = RunnerOptions()
    ) -> NodeTimes:
        """Run a model file as it is, after some runs to warm up, and time its nodes.

        Raises:
            UnsupportedError: The runtime refuses the model, or reports no times of single nodes.
        """
        raise UnsupportedError(f"target {self.name!r} reports no times of single nodes")

    def default_precision(self) -> str:
        """Type in which the runtime computes float32 models on this machine by default.

        Some runtimes round to 16 bits by default. Figures of an unchanged model then
        differ from the exact ones, and a report must say so.
        """
        return "float32"

    @abstractmethod
    def version(self) -> str:
        """Runtime name and version (`onnxruntime 1.31.1`)."""
