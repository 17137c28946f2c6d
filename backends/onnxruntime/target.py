"""ONNX Runtime on a CPU, on CUDA, and through TensorRT."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from irtools.backends.onnxruntime.capabilities import (
    cpu_capabilities,
    cuda_capabilities,
    tensorrt_capabilities,
)
from irtools.errors import OptionError, TargetUnavailableError
from irtools.targets import (
    Artifact,
    Capabilities,
    Companions,
    Feeds,
    Isa,
    KernelReport,
    NodeTimes,
    Runner,
    RunnerOptions,
    Target,
    lower_file_version,
    lowered,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.backends.onnxruntime.session import Provider
    from irtools.backends.onnxruntime.source import ModelSource
    from irtools.model import Model

__all__ = ["OrtCpu", "OrtCuda", "OrtTensorRt"]


@dataclass(frozen=True)
class _Ort(Target):
    """What the three targets share."""

    provider_name: ClassVar[str]
    stores_optimized: ClassVar[bool] = True
    """The artifact holds the graph as the runtime optimizes it."""
    formats: ClassVar[tuple[str, ...]] = ("onnx", "ort")

    @abstractmethod
    def providers(self) -> tuple[Provider, ...]:
        """Return the execution providers in order of preference."""

    def check_available(self) -> None:
        from irtools.backends.onnxruntime.library import import_onnxruntime

        ort = import_onnxruntime()
        if self.provider_name not in ort.get_available_providers():
            raise TargetUnavailableError(
                f"target {self.name!r} needs {self.provider_name}, which this build of "
                f"onnxruntime {ort.__version__} lacks: {self._remedy()}"
            )

    def runner(self, model: Model | Path, options: RunnerOptions = RunnerOptions()) -> Runner:
        from irtools.backends.onnxruntime.runner import OrtRunner

        return OrtRunner(self._source(model, options), options, self.providers())

    def kernels(
        self, model: Model | Path, options: RunnerOptions = RunnerOptions()
    ) -> KernelReport:
        from irtools.backends.onnxruntime.runner import compiled_kernels

        return compiled_kernels(self._source(model, options), options, self.providers())

    def _source(self, model: Model | Path, options: RunnerOptions) -> ModelSource:
        from irtools.backends.onnxruntime.source import ModelSource

        if options.precision not in (None, "f32"):
            raise OptionError(
                f"target {self.name!r} has no inference precision {options.precision!r}; it "
                "computes in the types of the model (use the pass fp16 or bf16)"
            )
        self.check_available()
        on_cpu = self.provider_name == OrtCpu.provider_name
        return ModelSource.of(self.as_run(model), on_cpu=on_cpu, mapped=options.frugal)

    def lower(self, model: ir.Model) -> Mapping[str, int]:
        return lower_file_version(model, self.capabilities)

    def compile(
        self, model: Model, directory: Path, stem: str, *, format: str | None = None
    ) -> Artifact:
        from irtools.backends.onnxruntime.artifact import write_artifact

        chosen = self.choose_format(format)
        self.check_available()
        return write_artifact(
            lowered(model, self),
            directory / f"{stem}.{chosen}",
            self.providers(),
            optimize=self.stores_optimized,
        )

    def complete_folder(self, model: Model, main: Path) -> Companions:
        from irtools.backends.onnxruntime.genai import write_config

        return write_config(model, main)

    def write_adapter(self, path: Path, arrays: Feeds) -> None:
        """Write an adapter; see `irtools.targets.TakesAdapters`."""
        from irtools.backends.onnxruntime.adapters import write_adapter

        write_adapter(path, arrays)

    def profile(
        self, model: Path, feeds: Feeds, runs: int, options: RunnerOptions = RunnerOptions()
    ) -> NodeTimes:
        from irtools.backends.onnxruntime.profiling import profile

        self.check_available()
        return profile(self.as_run(model), feeds, runs, options, self.providers())

    def version(self) -> str:
        for package in ("onnxruntime-gpu", "onnxruntime"):
            try:
                return f"{package} {version(package)}"
            except PackageNotFoundError:
                continue
        from irtools.backends.onnxruntime.library import import_onnxruntime

        ort = import_onnxruntime()
        return f"onnxruntime {ort.__version__}"

    def _remedy(self) -> str:
        return (
            "pip uninstall onnxruntime && pip install onnxruntime-gpu (the two packages "
            "cannot be installed together), with an NVIDIA driver and CUDA 12 on the machine"
        )


@dataclass(frozen=True)
class OrtCpu(_Ort):
    """ONNX Runtime on a CPU.

    Attributes:
        shared_cache: Give decoders the attention that writes into the buffer of its cache. Else
            they keep Attention of the standard, which copies it, and any runtime reads that.
    """

    name: ClassVar[str] = "ort-cpu"
    summary: ClassVar[str] = "ONNX Runtime on a CPU"
    provider_name: ClassVar[str] = "CPUExecutionProvider"
    widening: ClassVar[str] = "the session option session.x64quantprecision=1"
    shared_cache: bool = True

    @property
    def capabilities(self) -> Capabilities:
        found = cpu_capabilities(self.isa)
        if self.shared_cache:
            return found
        return replace(found, shares_cache=False, cache_bits=frozenset())

    def as_run(self, model: Model | Path) -> Model | Path:
        """Return the model with unsigned weights where the target's CPU, or this one, saturates.

        Safe weights, such as those that `int8` makes for such a CPU, keep the faster kernels.
        """
        here = cpu_capabilities(Isa.detect())
        if not (self.capabilities.saturates_u8s8 or here.saturates_u8s8):
            return model
        from irtools.backends.exact_products import exact_products

        return exact_products(model)

    def lower(self, model: ir.Model) -> Mapping[str, int]:
        from irtools.backends.onnxruntime.lowering import lower_for_cpu

        return lower_for_cpu(model, self.capabilities)

    def providers(self) -> tuple[Provider, ...]:
        from irtools.backends.onnxruntime.session import Provider

        return (Provider(self.provider_name),)

    def _remedy(self) -> str:
        return "pip install --force-reinstall onnxruntime"


@dataclass(frozen=True)
class OrtCuda(_Ort):
    """ONNX Runtime on an NVIDIA GPU. What CUDA cannot run, the CPU does, and is counted."""

    name: ClassVar[str] = "ort-cuda"
    summary: ClassVar[str] = "ONNX Runtime on an NVIDIA GPU (needs onnxruntime-gpu)"
    provider_name: ClassVar[str] = "CUDAExecutionProvider"

    @property
    def runs_here(self) -> bool:
        return True  # The CPU next to the GPU does not matter.

    @property
    def capabilities(self) -> Capabilities:
        return cuda_capabilities()

    def providers(self) -> tuple[Provider, ...]:
        from irtools.backends.onnxruntime.session import Provider

        # TF32 would silently keep 10 bits of each float32 product.
        return (
            Provider(self.provider_name, {"use_tf32": "0"}),
            Provider("CPUExecutionProvider"),
        )


@dataclass(frozen=True)
class OrtTensorRt(_Ort):
    """ONNX Runtime with NVIDIA TensorRT; what it leaves goes to CUDA, then to the CPU."""

    name: ClassVar[str] = "ort-tensorrt"
    summary: ClassVar[str] = "ONNX Runtime with NVIDIA TensorRT (needs onnxruntime-gpu)"
    provider_name: ClassVar[str] = "TensorrtExecutionProvider"
    # TensorRT fuses standard operators and knows none of the runtime's own. Its parts of the
    # graph are compiled from ONNX when the model is loaded.
    stores_optimized: ClassVar[bool] = False
    formats: ClassVar[tuple[str, ...]] = ("onnx",)

    @property
    def runs_here(self) -> bool:
        return True  # The CPU next to the GPU does not matter.

    @property
    def capabilities(self) -> Capabilities:
        return tensorrt_capabilities()

    def providers(self) -> tuple[Provider, ...]:
        from irtools.backends.onnxruntime.session import Provider

        return (
            Provider(self.provider_name),
            Provider("CUDAExecutionProvider", {"use_tf32": "0"}),
            Provider("CPUExecutionProvider"),
        )

    def _remedy(self) -> str:
        return f"{super()._remedy()}, and the TensorRT libraries (pip install tensorrt)"
