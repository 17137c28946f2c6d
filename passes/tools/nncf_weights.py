"""The pass `nncf-weights`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import onnx

from irtools.errors import OptionError
from irtools.passes.tools.nncf_library import nncf_library
from irtools.passes.tools.quantizer import ToolQuantizer, matching_nodes, tool_at_work
from irtools.passes.tools.samples import Feeds
from irtools.passmanager import option

__all__ = ["NncfWeights"]

_INT8 = ("int8_asym", "int8_sym")
_BADLY_WRITTEN = ("Conv", "ConvTranspose")
"""NNCF 3.4 gives the scales of their weights the rank of the weights, which no runtime takes."""


@dataclass(frozen=True)
class NncfWeights(ToolQuantizer):
    """Store weights in 8 or 4 bits with NNCF's `nncf.compress_weights`.

    Weight compression of the Neural Network Compression Framework, as it is; options have its
    names. Activations stay in float32. Of its modes those are here that it has for ONNX models: nf4
    is `int4:format=nf4`. Weights of Conv stay in float32. Needs the extra `nncf`. Its telemetry is
    off.
    """

    name: ClassVar[str] = "nncf-weights"

    mode: Literal["int8_asym", "int8_sym", "int4_asym", "int4_sym"] = option(
        "int8_asym", "bits of weights, with zero points or without"
    )
    ratio: float | None = option(
        None, "share of the weights that get 4 bits, the others 8; none: 1; int4 modes only"
    )
    group_size: int | None = option(
        None, "input channels that share a scale, -1: all; none: 128; int4 modes only"
    )
    all_layers: bool = option(
        False, "embeddings and the last layer get 4 bits as well; int4 modes only"
    )
    backup_mode: Literal["int8_asym", "int8_sym", "none"] = option(
        "int8_asym", "what the weights get that do not get 4 bits; int4 modes only"
    )
    awq: bool = option(False, "move scales first (AWQ); int4 modes only")
    scale_estimation: bool = option(
        False, "scales that lose least on calibration data; int4 modes only"
    )
    subset_size: int = option(128, "samples that are used at most")
    ignored_scope: tuple[str, ...] = option((), "patterns of names of nodes that stay float32")

    def __post_init__(self) -> None:
        if self.subset_size < 1:
            raise OptionError(f"subset-size is {self.subset_size}, expected 1 or more")
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise OptionError(f"ratio is {self.ratio:g}, expected 0 to 1")
        if self.group_size is not None and (self.group_size == 0 or self.group_size < -1):
            raise OptionError(f"group-size is {self.group_size}, expected 1 or more, or -1")
        given = [name for name, value in self._of_four_bits().items() if value is not None]
        if given and self.mode in _INT8:
            raise OptionError(
                f"{given[0].replace('_', '-')} needs mode=int4_asym or int4_sym, the mode is "
                f"{self.mode!r}"
            )

    @property
    def needs_samples(self) -> bool:
        mixed = self.ratio is not None and self.ratio < 1
        return self.awq or self.scale_estimation or mixed

    @property
    def opset(self) -> int:
        return 13 if self.mode in _INT8 else 21

    @property
    def most_samples(self) -> int | None:
        return self.subset_size

    def quantized(self, message: onnx.ModelProto, samples: Sequence[Feeds]) -> onnx.ModelProto:
        ignored = matching_nodes(message, self.ignored_scope, "ignored-scope")
        made: onnx.ModelProto = self.compressed(message, samples, ignored, _BADLY_WRITTEN)
        return made

    def compressed(
        self,
        model: Any,
        samples: Sequence[Feeds] = (),
        ignored: Sequence[str] = (),
        ignored_types: Sequence[str] = (),
    ) -> Any:
        """Return what NNCF makes of a model of any kind that it takes, as that kind.

        Raises:
            MissingExtraError: NNCF is not installed.
            UnsupportedError: It failed.
        """
        with nncf_library() as nncf, tool_at_work(self.name):
            options = self._of_four_bits()
            if options["backup_mode"]:
                options["backup_mode"] = nncf.BackupMode(options["backup_mode"])
            scope = nncf.IgnoredScope(
                names=list(ignored), types=list(ignored_types), validate=False
            )
            return nncf.compress_weights(
                model,
                mode=nncf.CompressWeightsMode(self.mode),
                ignored_scope=scope if ignored or ignored_types else None,
                dataset=nncf.Dataset([dict(feeds) for feeds in samples]) if samples else None,
                subset_size=min(self.subset_size, len(samples)) or self.subset_size,
                **options,
            )

    def _of_four_bits(self) -> dict[str, Any]:
        """Return what the 8-bit modes do not take, None where it is not set."""
        return {
            "ratio": self.ratio,
            "group_size": self.group_size,
            "all_layers": self.all_layers or None,
            "backup_mode": None if self.backup_mode == "int8_asym" else self.backup_mode,
            "awq": self.awq or None,
            "scale_estimation": self.scale_estimation or None,
        }
