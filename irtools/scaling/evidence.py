"""What is known of a product from calibration data and its weight: enough for its rounding error.

Per input channel: the ends of its values, their mean square and number (`ChannelRange`,
`ChannelSquare`, `Count`), collected once for all sites of a model. Of a weight: the values by
input and output channel, and the energy of each input channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from irtools.analysis.scales import ScaledProduct, Site
from irtools.editing import require_array
from irtools.operators import weight_port
from irtools.statistics import ChannelRange, ChannelSquare, Count, StatisticsService, Want

__all__ = ["Channels", "WeightView", "collect_channels", "weight_view"]


@dataclass(frozen=True, eq=False)
class Channels:
    """What calibration shows of the input channels of a product.

    Attributes:
        low: Smallest values, float64 [C].
        high: Largest values, float64 [C].
        square: Mean squares, float64 [C].
        count: How many values of each channel there were.
    """

    low: np.ndarray
    high: np.ndarray
    square: np.ndarray
    count: int

    @property
    def is_usable(self) -> bool:
        """Whether data has reached the product and left zero."""
        ends = np.concatenate([self.low, self.high, self.square])
        return bool(ends.size and np.isfinite(ends).all() and np.any(self.high > self.low))


@dataclass(frozen=True, eq=False)
class WeightView:
    """A weight by groups, input channels and output channels.

    Attributes:
        values: W, float32 [G, K, N, T]: K input and N output channels of each of G groups, of which
            there is one but in a Conv in groups, and T taps of a kernel.
        peaks: max |W| over the taps, [G, K, N].
        energy: sum of W^2 over outputs and taps, float64 [G * K].
    """

    values: np.ndarray
    peaks: np.ndarray
    energy: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> WeightView:
        """Look at a weight [G, K, N, T]."""
        energy = np.einsum("gknt,gknt->gk", values, values, dtype=np.float64).reshape(-1)
        return cls(values, np.abs(values).max(axis=3), energy)

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.energy).all())


def collect_channels(
    sites: Iterable[Site], statistics: StatisticsService
) -> Mapping[tuple[str, int], Channels]:
    """Collect the statistics of all inputs of products at once; (value name, axis) to them."""
    keys = {(p.activation.name or "", p.axis): None for site in sites for p in site.products}
    kinds = (ChannelRange, ChannelSquare, Count)
    wants = [Want(name, kind(axis)) for name, axis in keys for kind in kinds]
    answers = {want: np.asarray(a, np.float64) for want, a in statistics.collect(wants).items()}
    found = {}
    for name, axis in keys:
        ends, square, count = (answers[Want(name, kind(axis))] for kind in kinds)
        found[name, axis] = Channels(ends[0], ends[1], square, int(count))
    return found


def weight_view(product: ScaledProduct) -> WeightView:
    """Return the weight of a product as it is stored now."""
    array = require_array(product.weight).astype(np.float32, copy=False)
    if product.axis == 1:
        groups = product.node.attributes.get_int("group", 1)
        split = array.reshape(groups, array.shape[0] // groups, array.shape[1], -1)
        return WeightView.of(split.transpose(0, 2, 1, 3))
    return WeightView.of((array.T if _is_turned(product) else array)[None, :, :, None])


def _is_turned(product: ScaledProduct) -> bool:
    """Whether the weight is stored as [N, K]."""
    port = weight_port(product.holder)
    return product.holder.op_type == "Transpose" or (port is not None and port.in_axis == 1)
