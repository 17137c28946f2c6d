"""What a weight can become: the contract that every form keeps."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import onnx_ir as ir

from irtools.passes.quantization.forms.decisions import UseDecision
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.sites.reasons import Reason
from irtools.passes.quantization.write.desk import Desk
from irtools.passmanager import Decision, Json
from irtools.targets import Capabilities

__all__ = ["Form", "Key", "WeightDecision"]

S = TypeVar("S")

Key: TypeAlias = tuple[str, str]
"""Scope and name of a weight: branches of an If may use the same names."""


@dataclass(frozen=True)
class Form(ABC, Generic[S]):
    """What a weight can become.

    An object is the form of one weight. Its fields are what a plan stores of it: numbers, words
    and tuples of them, which `decide` fits to the weight.
    """

    name: ClassVar[str]
    """In plans, and where a user chooses it."""

    counters: ClassVar[Mapping[str, str]]
    """What `count` counts: counter to phrase, in the plural."""

    reasons: ClassVar[tuple[Reason, ...]] = ()
    """Why `fits` and `decide` may leave a weight alone."""

    rounds_activations: ClassVar[bool] = False
    """The activations are quantized with the weight, so that storing it alone keeps more."""

    keeps_readers: ClassVar[bool] = False
    """The nodes that read the weight stay: it is written before forms that replace nodes."""

    @property
    def opset(self) -> int:
        """Oldest opset that can express it; 0: the oldest that is read."""
        return 0

    @staticmethod
    @abstractmethod
    def find(model: ir.Model) -> Mapping[Key, Any]:
        """Return the weights of a model that forms of this kind are for."""

    @abstractmethod
    def serves(self, weight: S) -> bool:
        """Whether it is a form for what reads the weight."""

    def fits(self, weight: S, capabilities: Capabilities) -> Reason | None:
        """Return why a weight that it serves cannot take it on a target, or None."""
        return None

    @abstractmethod
    def decide(self, weight: S, evidence: Evidence) -> Decision | Reason:
        """Predict what it costs and gains; or why the weight is left alone after all."""

    @abstractmethod
    def write(self, desk: Desk, weight: S, made: WeightDecision) -> None:
        """Carry a decision out, on the object that it was made with."""

    @abstractmethod
    def count(self, weight: S) -> Counter[str]:
        """Return what a weight that was written adds to the counters."""

    @abstractmethod
    def match(self, made: WeightDecision, weights: Mapping[Key, S]) -> S:
        """Return the weight that a decision is about.

        Raises:
            UsageError: The model has no such weight, or it is read by other nodes.
        """

    def to_data(self) -> Mapping[str, Json]:
        """Return name and fields as JSON values."""
        values = dataclasses.asdict(self)
        return {"form": self.name} | {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }


@dataclass(frozen=True, eq=False)
class WeightDecision:
    """What happens to one weight.

    Attributes:
        weight: Its value name.
        form: What it becomes.
        uses: Its readers, all of them.
        scope: Graph of the weight, as `scoped_graphs` calls it; empty for the main graph.
    """

    weight: str
    form: Form[Any]
    uses: tuple[UseDecision, ...]
    scope: str = ""

    @property
    def key(self) -> Key:
        return self.scope, self.weight

    def to_data(self) -> Mapping[str, Json]:
        """Write the decision as JSON values. `registry.read_decision` reads it back."""
        uses: Sequence[Json] = [use.to_data() for use in self.uses]
        return {
            "weight": self.weight,
            "scope": self.scope,
            **self.form.to_data(),
            "uses": uses,
        }
