"""The pass `nncf`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import onnx

from irtools.errors import OptionError
from irtools.passes.tools.nncf_accuracy import Validation
from irtools.passes.tools.nncf_library import nncf_library
from irtools.passes.tools.quantizer import ToolQuantizer, matching_nodes, tool_at_work
from irtools.passes.tools.samples import Feeds
from irtools.passmanager import PassContext, option

__all__ = ["Nncf"]


@dataclass(frozen=True)
class Nncf(ToolQuantizer):
    """Quantize with NNCF's `nncf.quantize`: ranges of activations from calibration data.

    With `max-drop` its `nncf.quantize_with_accuracy_control`: layers go back to float32, those
    first that hurt most, until a metric on the labelled evaluation data drops by no more.

    Post-training quantization of the Neural Network Compression Framework, as it is; options have
    its names. Made are QuantizeLinear and DequantizeLinear pairs where its tables say that a device
    of Intel multiplies integers. Needs the extra `nncf`. Its telemetry is off.
    """

    name: ClassVar[str] = "nncf"

    preset: Literal["performance", "mixed"] | None = option(
        None,
        "performance: symmetric ranges of activations; mixed: asymmetric ones; none: mixed for "
        "transformers, else performance",
    )
    model_type: Literal["transformer"] | None = option(
        None, "transformer: leave out what transformers suffer from, and move scales first"
    )
    target_device: Literal["any", "cpu", "gpu", "npu"] = option(
        "any", "device whose integer operators are counted on"
    )
    subset_size: int = option(300, "samples that are used at most")
    fast_bias_correction: bool = option(True, "false: slower, and more accurate in general")
    ignored_scope: tuple[str, ...] = option((), "patterns of names of nodes that stay float32")

    max_drop: float | None = option(
        None,
        "accuracy control: what the metric may lose on the evaluation data, 0.01 for a point of "
        "accuracy; none: nothing is measured",
    )
    drop_type: Literal["absolute", "relative"] = option(
        "absolute", "what max-drop is counted in: the metric's own unit, or shares of it"
    )
    metric: str = option("accuracy", "metric that max-drop is about")
    ranking_subset_size: int | None = option(
        None, "samples that layers are ranked on for max-drop; none: as many as subset-size"
    )

    def __post_init__(self) -> None:
        if self.subset_size < 1:
            raise OptionError(f"subset-size is {self.subset_size}, expected 1 or more")
        if self.max_drop is not None and not 0 <= self.max_drop < math.inf:
            raise OptionError(f"max-drop is {self.max_drop:g}, expected 0 or more")
        if self.ranking_subset_size is not None and self.ranking_subset_size < 1:
            raise OptionError(
                f"ranking-subset-size is {self.ranking_subset_size}, expected 1 or more"
            )
        if self.max_drop is None:
            self._refuse_control()

    def _refuse_control(self) -> None:
        """Refuse options that nothing would read."""
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("drop_type", "metric", "ranking_subset_size"):
            if getattr(self, name) != usual[name]:
                raise OptionError(f"{name.replace('_', '-')} needs max-drop")

    @property
    def opset(self) -> int:
        return 13  # QuantizeLinear with scales per channel.

    @property
    def most_samples(self) -> int | None:
        return self.subset_size

    def judged(
        self, message: onnx.ModelProto, samples: Sequence[Feeds], ctx: PassContext
    ) -> onnx.ModelProto:
        if self.max_drop is None:
            return self.quantized(message, samples)
        validation = Validation.of(ctx, self.metric)
        ignored = matching_nodes(message, self.ignored_scope, "ignored-scope")
        with nncf_library() as nncf, tool_at_work("nncf"):
            ranked = nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=self.ranking_subset_size
            )
            made: onnx.ModelProto = nncf.quantize_with_accuracy_control(
                message,
                validation_dataset=nncf.Dataset(range(len(validation.data))),
                validation_fn=validation,
                max_drop=self.max_drop,
                drop_type=nncf.DropType(self.drop_type),
                advanced_accuracy_restorer_parameters=ranked,
                **self._settings(nncf, samples, ignored),
            )
        return made

    def quantized(self, message: onnx.ModelProto, samples: Sequence[Feeds]) -> onnx.ModelProto:
        ignored = matching_nodes(message, self.ignored_scope, "ignored-scope")
        made: onnx.ModelProto = self.quantized_model(message, samples, ignored)
        return made

    def quantized_model(
        self, model: Any, samples: Sequence[Feeds], ignored: Sequence[str] = ()
    ) -> Any:
        """Return what NNCF makes of a model of any kind that it takes, as that kind.

        Raises:
            MissingExtraError: NNCF is not installed.
            UnsupportedError: It failed.
        """
        with nncf_library() as nncf, tool_at_work("nncf"):
            return nncf.quantize(model, **self._settings(nncf, samples, ignored))

    def _settings(
        self, nncf: Any, samples: Sequence[Feeds], ignored: Sequence[str]
    ) -> dict[str, Any]:
        return {
            "calibration_dataset": nncf.Dataset([dict(feeds) for feeds in samples]),
            "preset": self.preset and nncf.QuantizationPreset(self.preset),
            "target_device": nncf.TargetDevice(self.target_device.upper()),
            "subset_size": min(self.subset_size, len(samples)),
            "fast_bias_correction": self.fast_bias_correction,
            "model_type": self.model_type and nncf.ModelType(self.model_type),
            "ignored_scope": nncf.IgnoredScope(names=list(ignored)) if ignored else None,
        }
