"""OpenVINO on a CPU and on an Intel GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from irtools.backends.openvino.capabilities import cpu_capabilities, gpu_capabilities
from irtools.backends.openvino.library import import_openvino, release
from irtools.errors import TargetUnavailableError
from irtools.targets import (
    Capabilities,
    Companions,
    Feeds,
    Isa,
    NodeTimes,
    PackagedTarget,
    Runner,
    RunnerOptions,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.model import Model

__all__ = ["OpenVinoCpu", "OpenVinoGpu"]


_PRECISIONS = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


@dataclass(frozen=True)
class _OpenVino(PackagedTarget):
    """What both targets share.

    Attributes:
        stateful: Keep the cache of a decoder inside the runtime, where its attention reads it
            in place. Else it is an input and an output of every step, as in ONNX.
    """

    stateful: bool = True

    device: ClassVar[str]
    package: ClassVar[str] = "openvino"
    formats: ClassVar[tuple[str, ...]] = ("xml", "blob")
    unproven_formats: ClassVar[frozenset[str]] = frozenset({"blob"})

    def check_available(self) -> None:
        devices = import_openvino().Core().available_devices
        if not any(device.split(".")[0] == self.device for device in devices):
            raise TargetUnavailableError(
                f"OpenVINO sees no {self.device} here (it sees {', '.join(devices) or 'nothing'}): "
                f"{self._remedy()}"
            )

    def runner(self, model: Model | Path, options: RunnerOptions = RunnerOptions()) -> Runner:
        self.check_available()
        from irtools.backends.openvino.runner import open_runner

        return open_runner(self.as_run(model), options, self.device, stateful=self.stateful)

    def lower(self, model: ir.Model) -> Mapping[str, int]:
        from irtools.backends.openvino.lowering import lower

        return lower(model, self.capabilities)

    def write(self, form: Model, path: Path) -> None:
        from irtools.backends.openvino.compiled import SUFFIX, write_compiled
        from irtools.backends.openvino.source import import_model, write_model
        from irtools.backends.openvino.stateful import make_stateful

        imported = import_model(import_openvino().Core(), form)
        if self.stateful:
            imported = make_stateful(imported)
        if path.suffix == SUFFIX:
            write_compiled(imported, path, self.device)
        else:
            write_model(imported, path)

    def folder_stem(self, model: Model, usual: str) -> str:
        from irtools.backends.openvino.genai import MAIN, writes_text

        return MAIN if self.stateful and writes_text(model) else usual

    def complete_folder(self, model: Model, main: Path) -> Companions:
        from irtools.backends.openvino.genai import complete, writes_text

        if not (self.stateful and writes_text(model)):
            return Companions()
        return complete(main)

    def profile(
        self, model: Path, feeds: Feeds, runs: int, options: RunnerOptions = RunnerOptions()
    ) -> NodeTimes:
        self.check_available()
        from irtools.backends.openvino.profiling import profile

        return profile(
            self.as_run(model), feeds, runs, options, self.device, stateful=self.stateful
        )

    def default_precision(self) -> str:
        self.check_available()
        core = import_openvino().Core()
        name = str(core.get_property(self.device, "INFERENCE_PRECISION_HINT").to_string())
        return _PRECISIONS.get(name, name)

    def version(self) -> str:
        return f"openvino {release()}"

    def _remedy(self) -> str:
        return "reinstall the openvino package"


@dataclass(frozen=True)
class OpenVinoCpu(_OpenVino):
    """OpenVINO on a CPU."""

    name: ClassVar[str] = "openvino-cpu"
    summary: ClassVar[str] = "OpenVINO on a CPU (extra `openvino`)"
    device: ClassVar[str] = "CPU"
    widening: ClassVar[str] = "the property LP_TRANSFORMS_MODE=NO"

    @property
    def capabilities(self) -> Capabilities:
        found = cpu_capabilities(self.isa)
        return found if self.stateful else replace(found, cache_bits=frozenset())

    def as_run(self, model: Model | Path) -> Model | Path:
        """Return the model with unsigned weights where the target's CPU, or this one, saturates."""
        here = cpu_capabilities(Isa.detect())
        if not (self.capabilities.saturates_u8s8 or here.saturates_u8s8):
            return model
        from irtools.backends.exact_products import exact_products

        return exact_products(model)


@dataclass(frozen=True)
class OpenVinoGpu(_OpenVino):
    """OpenVINO on an Intel GPU."""

    name: ClassVar[str] = "openvino-gpu"
    summary: ClassVar[str] = "OpenVINO on an Intel GPU (extra `openvino`)"
    device: ClassVar[str] = "GPU"

    @property
    def runs_here(self) -> bool:
        return True  # The CPU next to the GPU does not matter.

    @property
    def capabilities(self) -> Capabilities:
        return gpu_capabilities()

    def _remedy(self) -> str:
        return "install Intel's compute runtime (intel-opencl-icd, level-zero) and its driver"
