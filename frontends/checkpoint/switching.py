"""Adapters that stay next to the weights of a base, so that one model serves several of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irtools.errors import OptionError, UnsupportedError
from irtools.files import scratch_folder
from irtools.frontends.checkpoint.adapters import Adapter
from irtools.frontends.checkpoint.low_rank import (
    Branch,
    LowRank,
    attach_inputs,
    packed,
    settle,
)
from irtools.frontends.checkpoint.prefix import PREFIXES, Prefix, read_prefix
from irtools.frontends.torch import TorchSource, Trial
from irtools.model import Model
from irtools.sources import ADAPTER_SUFFIX, PAST_SUFFIX
from irtools.targets import Feeds, Runner, TakesAdapters, find_target
from irtools.words import counted

__all__ = ["Switched", "attach_all", "read_switched"]

_INSTEAD = "merge it (--adapters-as merged)"


@dataclass(frozen=True)
class Switched:
    """An adapter as factors, and what the base with it computes.

    Attributes:
        name: By which it is chosen.
        factors: By module.
        trials: What an export must reproduce with it.
        prefix: Of a learned prompt, the cache that texts begin after; it has no factors.
    """

    name: str
    factors: Mapping[str, LowRank]
    trials: Sequence[Trial]
    prefix: Prefix | None = None


def read_switched(
    source: TorchSource, adapters: Sequence[Adapter], *, check: bool
) -> tuple[Switched, ...]:
    """Attach each adapter to the base in turn, read its factors, and detach it.

    Args:
        source: The base; unchanged afterwards.
        adapters: LoRA, rsLoRA, or learned prompts.
        check: Also run the base with each of them.

    Raises:
        ModelError: An adapter was made for another base.
        UnsupportedError: It does more than add a low-rank product to linear layers.
        OptionError: Two have the same name.
    """
    found: dict[str, Switched] = {}
    for adapter in adapters:
        name = adapter.folder.resolve().name
        if name in found:
            raise OptionError(
                f"two adapters are called {name!r}, after their folders: rename one of them"
            )
        if adapter.kind in PREFIXES:
            if adapter.weight != 1:
                raise UnsupportedError(
                    f"adapter {adapter.folder} is {adapter.kind}, which has no factor: give it "
                    "without one"
                )
            prefix = read_prefix(source, adapter, check=check)
            found[name] = Switched(name, {}, prefix.trials, prefix)
            continue
        _check_kind(adapter)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attached = adapter.attach(source.module)
            try:
                factors = dict(_factors(source.module, adapter))
                trials = tuple(source.trials()) if check else ()
            finally:
                attached.unload()
        found[name] = Switched(name, factors, trials)
    return tuple(found.values())


def attach_all(model: Model, switched: Sequence[Switched], where: str, form: str) -> list[Trial]:
    """Put adapters next to the weights of an exported base, in place, or their caches next to it.

    Args:
        model: Gets inputs, and for `inputs` a file for each adapter among its companions.
        switched: The adapters.
        where: What a message calls the model.
        form: `inputs`, or `constants`, which hold one adapter.

    Returns:
        What the model must reproduce with them.

    Raises:
        UnsupportedError: The graph has no place for one.
    """
    low_rank = [one for one in switched if one.prefix is None]
    if form == "constants" and len(low_rank) < len(switched):
        raise UnsupportedError(
            f"the learned prompt {switched[0].name!r} is a cache that texts begin after: give "
            "--adapters-as inputs"
        )
    modules = tuple(dict.fromkeys(name for one in low_rank for name in one.factors))
    branches = attach_inputs(model.ir, modules, where) if low_rank else ()
    arrays = {one.name: packed(branches, one.factors) for one in low_rank}
    if form == "constants":
        ((_, only),) = arrays.items()
        settle(model.ir, only)
        return [trial for one in switched for trial in one.trials]
    made = dict(_files(arrays))
    for one in switched:
        if one.prefix is not None:
            made[f"{one.name}{PAST_SUFFIX}"] = one.prefix.content
    model.companions = {**model.companions, **made}
    model.notes = (*model.notes, _note(branches, [one.name for one in switched]))
    return [
        trial if one.prefix is not None else _AdaptedTrial(trial, arrays[one.name], one.name)
        for one in switched
        for trial in one.trials
    ]


@dataclass(frozen=True)
class _AdaptedTrial:
    """A trial whose feeds have an adapter with them."""

    trial: Trial
    adapter: Feeds
    name: str

    @property
    def where(self) -> str:
        return f"{self.trial.where}, with the adapter {self.name!r}"

    def errors(self, runner: Runner) -> Iterator[tuple[str, str, float]]:
        for output, where, error in self.trial.errors(_Fed(runner, self.adapter)):
            yield output, f"{where}, with the adapter {self.name!r}", error


class _Fed:
    """A runner that gets further arrays with all feeds."""

    def __init__(self, runner: Runner, further: Feeds) -> None:
        self._runner = runner
        self._further = further

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        return self._runner.run({**feeds, **self._further}, outputs)


def _note(branches: Sequence[Branch], names: Sequence[str]) -> str:
    layers = sum(len(branch.modules) for branch in branches)
    where = f" ({counted(layers, 'layer')} with inputs for it)" if layers else ""
    return (
        f"without an adapter the model is the base; with one it is {' or '.join(names)}{where}: "
        "irc generate DIR --adapter NAME"
    )


def _files(arrays: Mapping[str, Feeds]) -> Iterator[tuple[str, bytes]]:
    """Write adapters in the form that the runtime loads."""
    target = find_target("ort-cpu")
    assert isinstance(target, TakesAdapters)
    with scratch_folder("adapters") as folder:
        for name, adapter in arrays.items():
            path = folder / f"{name}{ADAPTER_SUFFIX}"
            target.write_adapter(path, adapter)
            yield path.name, path.read_bytes()


def _check_kind(adapter: Adapter) -> None:
    """Refuse what is more than a low-rank product.

    Raises:
        UnsupportedError: It is.
    """
    kind = "DoRA" if adapter.config.get("use_dora") else adapter.kind
    if kind != "LORA":
        raise UnsupportedError(
            f"adapter {adapter.folder} is {kind}, and only LoRA and rsLoRA can stay next to the "
            f"weights: {_INSTEAD}"
        )
    strange = [name for name in adapter.tensors if not name.endswith(_FACTORS)]
    if strange:
        raise UnsupportedError(
            f"adapter {adapter.folder} has {strange[0]!r}, which is not a factor of a linear "
            f"layer: {_INSTEAD}"
        )


_FACTORS = (".lora_A.weight", ".lora_B.weight")


def _factors(module: Any, adapter: Adapter) -> Iterator[tuple[str, LowRank]]:
    from peft.tuners.lora import Linear

    for name, part in module.named_modules():
        if not getattr(part, "lora_A", None):
            continue
        if not isinstance(part, Linear):
            raise UnsupportedError(
                f"adapter {adapter.folder} changes {name!r} ({type(part.base_layer).__name__}), "
                f"and only linear layers can have one next to their weight: {_INSTEAD}"
            )
        ((key, down),) = part.lora_A.items()
        up = part.lora_B[key].weight * part.scaling[key]
        yield name, LowRank(_array(down.weight.T), _array(up.T))


def _array(tensor: Any) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().cpu().numpy()
    return np.ascontiguousarray(array)
