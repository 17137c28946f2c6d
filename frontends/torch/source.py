"""A torch module and its signature, run as torch runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from irtools.errors import UnsupportedError
from irtools.frontends.torch.check import RELATIVE_TOLERANCE, PlainTrial, Trial
from irtools.frontends.torch.padding import axes_of_sequence, hidden_by_name, spread

__all__ = [
    "CHECK_SIZES",
    "EXAMPLE_SIZES",
    "Tensors",
    "TorchSource",
    "draws_randomly",
    "tensors_of",
    "without_fast_path",
]

EXAMPLE_SIZES = (2, 24)
"""Batch and sequence that a module is traced with."""

CHECK_SIZES = ((1, 16), (3, 37))
"""Sizes that the exporter does not see, at which the export is checked."""

_CAUSAL_HINT = "_detect_is_causal_mask"
"""By it torch.nn.TransformerEncoder looks at the values of a mask."""

Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class TorchSource:
    """A module and what is known of its signature.

    Attributes:
        module: A `torch.nn.Module` in evaluation mode.
        inputs: Makes seeded input tensors by name for (batch, sequence) sizes.
        axes: Name of an input or output to its dynamic axes, as axis to label. A label that is a
            sum (`past_sequence + sequence`) follows from the others.
        outputs: Names of the outputs in the order in which the module returns tensors.
        where: What a message calls the module.
        limits: Largest size of a named axis.
        forward: What to export in place of the module's own `forward`, which it gets as its first
            argument: inputs by name to outputs in order. None: the module called with the inputs
            as keywords.
        make_trials: Makes what the export is checked with; None: the outputs at two sizes that
            the exporter does not see.
        metadata: Properties for the model.
        notes: What its user should know of what was left out.
        example: Batch and sequence that it is traced with.
    """

    module: Any
    inputs: Callable[[int, int], Tensors]
    axes: Mapping[str, Mapping[int, str]]
    outputs: Sequence[str]
    where: str
    limits: Mapping[str, int] = field(default_factory=dict)
    forward: Callable[[Callable[..., Any], Tensors], Sequence[Any]] | None = None
    make_trials: Callable[[], Sequence[Trial]] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    example: tuple[int, int] = EXAMPLE_SIZES

    def trials(self) -> Sequence[Trial]:
        """Run the module as it is and return what the export must reproduce.

        Raises:
            UnsupportedError: It computes something else each time.
        """
        if self.make_trials is not None:
            return self.make_trials()
        longest = self.limits.get("sequence", CHECK_SIZES[-1][1])
        sizes = [(batch, min(length, longest)) for batch, length in CHECK_SIZES]
        found = [self._trial(*size) for size in sizes]
        hidden = _at_padding(found)
        found = [replace(trial, hidden=at) for trial, at in zip(found, hidden, strict=True)]
        for name, again in self._trial(*sizes[0]).wanted.items():
            if found[0].error(name, again) > RELATIVE_TOLERANCE:
                raise draws_randomly(self.where, name)
        return found

    def run(self, inputs: Tensors) -> dict[str, Any]:
        """Run the module and return its outputs by name."""
        import torch

        with torch.inference_mode(), without_fast_path():
            if self.forward is not None:
                found = self.forward(self.module, inputs)
            else:
                found = list(tensors_of(self.module(**inputs)).values())
        return dict(zip(self.outputs, found, strict=True))

    def _trial(self, batch: int, sequence: int) -> PlainTrial:
        inputs = self.inputs(batch, sequence)
        return PlainTrial(
            {name: tensor.numpy() for name, tensor in inputs.items()},
            {name: tensor.float().numpy() for name, tensor in self.run(inputs).items()},
            f"batch {batch}" + f", sequence {sequence}" * self._has_sequence,
        )

    @property
    def _has_sequence(self) -> bool:
        return any("sequence" in axes.values() for axes in self.axes.values())


def draws_randomly(where: str, output: str) -> UnsupportedError:
    """Return the refusal of a module that computes something else each time."""
    return UnsupportedError(
        f"{where} draws random numbers: output {output!r} is different each time torch computes "
        "it, and no export can be compared with it; --no-check leaves that out"
    )


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Let torch's attention layers compute what they do in training.

    Their fast path for inference is another function at padding: it puts zeros there and may cut
    the sequence to the longest row. It is never exported. Nor do they look whether a mask is
    causal: that is a hint alone, since the mask is added all the same, and no export can branch on
    it.
    """
    import torch
    from torch.nn.modules import transformer

    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    detect = vars(transformer).get(_CAUSAL_HINT)
    if detect is not None:
        setattr(transformer, _CAUSAL_HINT, _hint_as_given)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
        if detect is not None:
            setattr(transformer, _CAUSAL_HINT, detect)


def _hint_as_given(mask: object, is_causal: bool | None = None, size: object = None) -> bool:
    return is_causal is True


def _at_padding(trials: Sequence[PlainTrial]) -> list[dict[str, np.ndarray]]:
    """Return for each trial, by output, what is at positions that its mask hides."""
    each = [hidden_by_name(trial.feeds) for trial in trials]
    masks = [mask for mask in each if mask is not None]
    if len(masks) < len(trials):
        return [{} for _ in trials]
    sizes = [(mask.shape[0], mask.shape[1]) for mask in masks]
    axes = {
        name: axes_of_sequence([trial.wanted[name].shape for trial in trials], sizes)
        for name in trials[0].wanted
    }
    return [
        {name: spread(mask, array, axes[name]) for name, array in trial.wanted.items()}
        for trial, mask in zip(trials, masks, strict=True)
    ]


def tensors_of(result: Any) -> dict[str, Any]:
    """Return the tensors that a module returns, by name where it names them.

    What is nested is named after what holds it: `hidden_states.0`, `output_1.0`.
    """
    import torch

    return dict(_named(torch, result, ""))


def _named(torch: Any, result: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(result, torch.Tensor):
        yield name or "output", result
    elif isinstance(result, (Mapping, list, tuple)):
        items = result.items() if isinstance(result, Mapping) else enumerate(result)
        for key, value in items:
            own = key if isinstance(key, str) else f"output_{key}"
            yield from _named(torch, value, f"{name}.{key}" if name else own)
