"""What a pass is, and what it answers."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.passmanager.context import PassContext
    from irtools.passmanager.plan import Plan

__all__ = ["FOLLOWED_GRAPH", "FOUND_WEIGHTS", "Exactness", "Pass", "PassResult", "PlanningPass"]

FOUND_WEIGHTS = ("lift-constants", "remove-identity", "fold-constants:exact=true")
"""What a pass requires that looks for weights right in front of the nodes that read them."""

FOLLOWED_GRAPH = (
    *FOUND_WEIGHTS,
    "remove-no-ops",
    "merge-layout-chains",
    "eliminate-common-subexpressions",
)
"""What a pass requires that follows sizes and layouts through the graph as well."""


class Exactness(enum.Enum):
    """How close the outputs after a pass are to those before it."""

    EXACT = "exact"
    """Bit-equal: the same operations on the same numbers."""

    REASSOCIATED = "reassociated"
    """The same function, other rounding: relative L2 error at most 1e-5 in float32."""

    LOSSY = "lossy"
    """Another function on purpose: judged by fidelity and the task metric."""


@dataclass(frozen=True)
class PassResult:
    """What a pass did.

    Attributes:
        modified: False means that the printed IR is the same text as before.
        counters: Counts by declared name (`Pass.counters`).
        notes: Sentences that a reader of the report must see.
        preserved: Analyses that still hold although the model was modified.
        plan: The decisions that were applied, where the pass made a plan.
        companions: Files that must be next to the model from now on, by name, in the place of
            those next to the source: the tokenizer of a smaller vocabulary.
    """

    modified: bool
    counters: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    preserved: frozenset[type] = frozenset()
    plan: Plan | None = None
    companions: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass(ABC):
    """A transformation of a model.

    A pass is a frozen dataclass: its fields are its options on the command line, its docstring
    is its reference page. It changes the model it is given; the manager owns that copy.
    Tensors are shared with the caller's model: a pass never writes into one, it makes new ones.

    Options have one of the types `bool`, `int`, `float`, `str`, `Literal[...]`,
    `tuple[str, ...]`, or one of these `| None`, and a default. The text after a field, as
    `field(metadata={"help": ...})` or made with `irtools.option`, is its meaning.
    """

    name: ClassVar[str]
    """Kebab-case, verb-object where it is one deed (`fuse-conv-bn`)."""

    summary: ClassVar[str] = ""
    """One line; the first line of the docstring where it is empty."""

    exactness: ClassVar[Exactness] = Exactness.LOSSY
    idempotent: ClassVar[bool] = True
    """Running the pass on its own result changes nothing."""

    counters: ClassVar[Mapping[str, str]] = {}
    """Name (`num-fused-attention`) to phrase (`attention blocks fused`)."""

    requires: ClassVar[tuple[str, ...]] = ()
    """Exact passes, as pipeline text each, that the manager runs on the model before this one.

    They say what the pass reads: one that looks for weights among initializers requires
    `lift-constants`. They run in this order, once each, on the copy that the pass gets; where the
    pass then changes nothing, neither does the model. So they must be quick where there is
    nothing to do, and may have no requirements of their own.
    """

    stores: ClassVar[bool] = False
    """It is there for smaller files: where what it requires makes the weights much smaller, that is
    kept although the pass itself finds nothing to do."""

    @property
    def promise(self) -> Exactness:
        """How exact the pass is as its options are set; `exactness` holds for all of them."""
        return self.exactness

    @abstractmethod
    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Transform `model` in place.

        Raises:
            UnsupportedError: The pass cannot work on this model or target at all. Parts that a
                pass cannot handle are not a reason: it leaves them alone and counts them.
        """


@dataclass(frozen=True)
class PlanningPass(Pass):
    """A pass that decides first and acts afterwards.

    `plan` reads the model and data and never writes; `apply` does what a plan says and decides
    nothing. Any prefix of a plan is a plan: the accuracy guard applies the longest prefix that
    keeps the budget.
    """

    @abstractmethod
    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        """Decide, the safest decision first."""

    @abstractmethod
    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        """Carry out every decision of `plan` on `model`."""

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        return self.apply(model, self.plan(model, ctx), ctx)
