"""One step of a pipeline, and the hooks that watch it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from irtools.measure.figures import Figures
from irtools.passmanager.base import Exactness, Pass, PassResult
from irtools.passmanager.syntax import pass_text

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.model import Model
    from irtools.passmanager.context import PassContext
    from irtools.passmanager.workspace import Workspace

__all__ = ["Instrument", "Original", "Replace", "Stage", "Step"]


@dataclass(frozen=True)
class Original(Pass):
    """Stands for the model before the first pass; step 0 of every run."""

    name: ClassVar[str] = "original"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        return PassResult(modified=False)


@dataclass
class Step:
    """One pass of a pipeline while it runs, and what came out.

    Attributes:
        index: Position in the pipeline, from 1; 0 for the original.
        total: Number of passes.
        pass_: The pass.
        original: The model before the first pass. It never changes.
        before: The model before this pass. It never changes.
        model: The model after this pass; `before` itself where nothing was modified.
        ctx: What the pass was given.
        workspace: Where the models of this run are on disk.
        result: What the pass answered.
        stage: What runs now: `pass`, or the name of an instrument.
        following: What the next pass of the pipeline promises; None of the last one.
        skipped: An instrument kept the pass from running.
        figures: What the instruments found out.
    """

    index: int
    total: int
    pass_: Pass
    original: Model
    before: Model
    model: Model
    ctx: PassContext
    workspace: Workspace
    result: PassResult = PassResult(modified=False)  # noqa: RUF009 - frozen
    stage: str = "pass"
    following: Exactness | None = None
    skipped: bool = False
    figures: Figures = field(default_factory=Figures)

    @property
    def text(self) -> str:
        """The pass with its options, as pipeline text."""
        return pass_text(self.pass_)

    @property
    def title(self) -> str:
        """Where in the pipeline an error happened, for messages."""
        return f"pass {self.index} of {self.total} ({self.text})" if self.index else "original"

    @property
    def deployed(self) -> Model:
        """The model in its target's form, as saved; the original as it is."""
        return self.model if self.model is self.original else self.workspace.deployed(self.model)

    @property
    def modified(self) -> bool:
        """Whether the model after the step differs from the one before it."""
        return self.model is not self.before


class Stage(enum.IntEnum):
    """When an instrument runs after a pass: what is broken must not be measured."""

    CHECK = 0
    GUARD = 1
    MEASURE = 2
    SHOW = 3


@dataclass(frozen=True)
class Replace:
    """The answer of an instrument that puts another model in the place of the step's.

    Attributes:
        model: The model; that before the pass undoes it.
        result: What counts as the answer of the pass.
    """

    model: Model
    result: PassResult


class Instrument:
    """Watches or enforces something around every pass. Every hook does nothing by default.

    `after` hooks run in order of the stages, and in the order given within one; `before` hooks in
    reverse. `after` and `end` may answer with `Replace`; otherwise the model is kept. A hook that
    raises ends the run like a failing pass.
    """

    name: ClassVar[str]
    stage: ClassVar[Stage] = Stage.MEASURE

    def begin(self, step: Step) -> None:
        """Called once with step 0, the original model, before the first pass."""

    def resumed(self, step: Step) -> None:
        """Called in place of the other hooks for each step that an earlier run has done.

        By default the original, step 0, is taken as at the beginning of a run.
        """
        if not step.index:
            self.begin(step)

    def should_run(self, step: Step) -> bool:
        """Whether the pass may run. It is skipped as soon as one instrument says no."""
        return True

    def before(self, step: Step) -> None:
        """Called before a pass runs."""

    def after(self, step: Step) -> Replace | None:
        """Called after a pass ran."""
        return None

    def end(self, step: Step) -> Replace | None:
        """Called once after the last pass that ran, with its step."""
        return None

    def failed(self, step: Step, error: Exception) -> None:
        """Called when the pass or a hook raised; the error is raised on afterwards."""
