"""Which sites of a model are scaled, and by how much: decisions that can be stored and applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.analysis.provenance import selects
from irtools.analysis.scales import REASONS, ScaledProduct, Site, Sites, find_sites
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor
from irtools.errors import UsageError
from irtools.scaling.evidence import Channels, collect_channels, weight_view
from irtools.scaling.fold import fits, fold, is_half
from irtools.scaling.strength import Reader, Rounding, Strength, find_strength
from irtools.statistics import StatisticsService
from irtools.words import counted

__all__ = [
    "COUNTERS",
    "MOVED",
    "ScaleSettings",
    "ScaledSite",
    "Scales",
    "apply_scales",
    "plan_scales",
]

_SKIPPED: Mapping[str, str] = MappingProxyType(
    {
        **{reason: f"because {phrase}" for reason, phrase in REASONS.items()},
        "gain": "because there is too little to gain",
        "float": "because none of their products is rounded",
        "excluded": "because an option excludes them",
        "unreached": "because calibration data never reached them",
        "nonfinite": "because a weight holds NaN or infinity",
        "range": "because scaled numbers would leave their type",
    }
)

MOVED: Mapping[str, str] = MappingProxyType(
    {
        "num-folded-norm": "inputs of products whose scales went into normalizations",
        "num-folded-value": "inputs of products whose scales went into the values of attention",
        "num-folded-neurons": "inputs of products whose scales went into the product before",
        "num-folded-channels": "inputs of products whose scales went into a convolution before",
        "num-scaled-mul": "inputs of products that are scaled with a Mul",
    }
)
"""What `apply_scales` counts."""

COUNTERS: Mapping[str, str] = MappingProxyType(
    {
        **MOVED,
        **{
            f"num-skipped-{name}": f"inputs left as they are {why}"
            for name, why in _SKIPPED.items()
        },
    }
)
"""What a pass that moves scales counts: every input of a product once."""


@dataclass(frozen=True)
class ScaleSettings:
    """What is scaled.

    Attributes:
        rounding: What the products will be rounded to.
        alpha: Strength of all sites, from 0 (weights decide) to 1 (activations do); None: the
            best one of each.
        least_gain_db: Signal to rounding noise that a site must gain.
        mul_gain_db: The same where it costs a Mul; None: none is written.
        exclude: Module patterns that are left alone.
        weights: Names of the weights that will be rounded; None: all of them.
        by_token: Names of the results of products whose input has a range for each token.
    """

    rounding: Rounding = field(default_factory=Rounding)
    alpha: float | None = None
    least_gain_db: float = 0.5
    mul_gain_db: float | None = 3.0
    exclude: tuple[str, ...] = ()
    weights: Collection[str] | None = None
    by_token: Collection[str] = ()

    def rounds(self, product: ScaledProduct) -> bool:
        """Whether the weight of a product will be rounded."""
        return self.weights is None or product.weight.name in self.weights


@dataclass(frozen=True, eq=False)
class ScaledSite:
    """A decision about one site.

    Attributes:
        name: Of the site.
        module: Of its first product.
        way: How its channels are divided.
        kind: What makes them.
        inputs: How many inputs of products are divided.
        scales: float64 [units].
        before: Relative squared error of its products, summed, as they are.
        after: With the scales.
    """

    name: str
    module: str
    way: str
    kind: str
    inputs: int
    scales: np.ndarray
    before: float = 0.0
    after: float = 0.0

    @property
    def gain_db(self) -> float:
        """Signal to rounding noise of its products that the scales gain, in decibels."""
        return float(10 * np.log10(max(self.before, 1e-30) / max(self.after, 1e-30)))

    @property
    def muls(self) -> int:
        """How many Mul nodes the scales cost."""
        return 0 if self.way == "folded" else self.inputs

    @property
    def action(self) -> str:
        """What is done, in words."""
        where = {"folded": "folded", "branched": "folded, a Mul for other readers"}
        return f"{counted(self.inputs, 'input')} scaled, {where.get(self.way, 'with a Mul')}"

    @property
    def counter(self) -> str:
        """The counter that its inputs belong to."""
        return f"num-folded-{self.kind}" if self.way == "folded" else "num-scaled-mul"

    def to_data(self) -> dict[str, Any]:
        """Write it as JSON values; `from_data` reads it back."""
        scales = [float(f"{scale:.7g}") for scale in self.scales]
        return {
            "site": self.name,
            "module": self.module,
            "way": self.way,
            "kind": self.kind,
            "inputs": self.inputs,
            "scales": scales,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> ScaledSite:
        """Read what `to_data` wrote.

        Raises:
            UsageError: It is something else.
        """
        try:
            scales = np.asarray(data["scales"], np.float64)
            if scales.ndim != 1 or not (np.isfinite(scales).all() and (scales > 0).all()):
                raise ValueError("scales are not positive numbers")
            return cls(
                data["site"],
                data["module"],
                data["way"],
                data["kind"],
                int(data["inputs"]),
                scales,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"not a decision about scales: {error!r}") from error


@dataclass
class Scales:
    """Decisions of a model, the free ones first, and counts of what stays."""

    sites: list[ScaledSite] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def plan_scales(
    model: ir.Model,
    shapes: SymbolicShapes,
    statistics: Callable[[], StatisticsService],
    settings: ScaleSettings,
) -> Scales:
    """Decide what is scaled; the model stays as it is.

    Args:
        model: Whose products will be rounded.
        shapes: Of it.
        statistics: Makes its statistics; called where there is a site.
        settings: What is wanted.
    """
    sites = find_sites(model, shapes)
    result = Scales(skipped=Counter(sites.refused.values()))
    wanted = _wanted(sites, settings, result)
    if not wanted:
        return result
    channels = collect_channels(wanted, statistics())
    for site in wanted:
        reason, found = _decided(site, channels, settings)
        if found is None:
            result.skipped[reason] += _inputs(site)
        else:
            result.sites.append(found)
    result.sites.sort(key=lambda site: (site.way != "folded", -site.gain_db))
    return result


def apply_scales(model: ir.Model, chosen: Sequence[ScaledSite], rule: str) -> dict[str, int]:
    """Carry decisions out; returns the counters.

    Args:
        model: Changed in place.
        chosen: Decisions about it, or about an equal model.
        rule: Name of the pass.

    Raises:
        UsageError: The model has no such site.
    """
    if not chosen:
        return {}
    sites = find_sites(model, SymbolicShapes.of(model))
    editor, counts = Editor(model, rule), Counter[str]()
    for one in chosen:
        site = sites.find(one.name)
        if site is None or site.way != one.way or site.units != len(one.scales):
            raise UsageError(
                f"the plan does not fit the model: the input {one.name!r} of a product has no "
                f"{len(one.scales)} channels to scale ({one.way}); make a new plan"
            )
        fold(editor, site, one.scales)
        counts[one.counter] += one.inputs
    return dict(counts)


def _wanted(sites: Sites, settings: ScaleSettings, result: Scales) -> list[Site]:
    found = []
    for site in sites:
        names = [site.module, *(p.node.name or "" for p in site.products)]
        if selects(settings.exclude, [*names, site.name]) is not None:
            result.skipped["excluded"] += _inputs(site)
        elif not any(settings.rounds(product) for product in site.products):
            result.skipped["float"] += _inputs(site)
        elif site.way != "folded" and settings.mul_gain_db is None:
            result.skipped[site.why] += _inputs(site)
        else:
            found.append(site)
    return found


def _decided(
    site: Site, channels: Mapping[tuple[str, int], Channels], settings: ScaleSettings
) -> tuple[str, ScaledSite | None]:
    """Return a decision, or the reason why there is none."""
    readers = []
    for product in site.products:
        if not settings.rounds(product):
            continue
        found = channels[product.activation.name or "", product.axis]
        if not found.is_usable:
            return "unreached", None
        by_token = product.node.outputs[0].name in settings.by_token
        readers.append(Reader(product.units, found, weight_view(product), by_token))
    if not all(reader.weight.is_finite for reader in readers):
        return "nonfinite", None
    half = is_half(site)
    strength = find_strength(site.units, readers, settings.rounding, settings.alpha, powers=half)
    needed = settings.least_gain_db if site.way == "folded" else settings.mul_gain_db
    if strength.gain_db < (needed or 0.0) or not strength.is_change:
        return ("gain" if site.way == "folded" else site.why), None
    if not fits(site, strength.scales):
        return "range", None
    return "", _scaled(site, strength)


def _scaled(site: Site, strength: Strength) -> ScaledSite:
    return ScaledSite(
        site.name,
        site.module,
        site.way,
        site.kind,
        _inputs(site),
        strength.scales,
        strength.before,
        strength.after,
    )


def _inputs(site: Site) -> int:
    """Return how many different inputs of products a site divides."""
    return len({product.activation for product in site.products})
