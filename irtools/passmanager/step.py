"""One step of a pipeline, and the hooks that watch it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from irtools.measure.memory import forget_peak, peak_memory
from irtools.passmanager.base import Exactness, Pass, PassResult
from irtools.passmanager.pipeline import pass_text
from irtools.scratch import scratch_folder
from irtools.words import counted

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.measure import LatencyResult
    from irtools.measure.generate import GreedyText
    from irtools.metrics import Fidelity
    from irtools.model import Model, SavedModel, WeightStore
    from irtools.passmanager.context import PassContext

__all__ = ["DrawnBack", "Figures", "Instrument", "MetricFigure", "Original", "Step", "Workspace"]


@dataclass(frozen=True)
class MetricFigure:
    """A task metric with its confidence interval.

    Attributes:
        name: Name of the metric (`accuracy`).
        value: The figure over the whole evaluation set.
        low: Lower end of the 95 % bootstrap interval over samples.
        high: Upper end.
        larger_is_better: Whether a larger figure is a better one.
        samples: Number of samples that it was measured on.
    """

    name: str
    value: float
    low: float
    high: float
    larger_is_better: bool
    samples: int


@dataclass(frozen=True)
class DrawnBack:
    """What the accuracy guard kept of a pass.

    Attributes:
        kept: Decisions that were applied; 0 where the whole pass was dropped.
        planned: Decisions that the pass made; 0 where it makes no plan.
        drop: Loss of the kept model, in the budget's unit.
        full_drop: Loss with every decision applied.
        budget: Largest loss allowed.
        judge: What was measured (`accuracy`, `top-1 agreement`).
        trials: Models evaluated.
    """

    kept: int
    planned: int
    drop: float
    full_drop: float
    budget: float
    judge: str
    trials: int

    def __str__(self) -> str:
        if not self.planned:
            return "dropped"
        return f"drawn back to {self.kept} of {counted(self.planned, 'decision')}"


@dataclass
class Figures:
    """What instruments found out about the model after a step. None: not measured.

    Attributes:
        seconds: Wall time by activity: `pass`, then one per instrument.
        peak_bytes: Peak resident memory of this process by activity, mapped weights included;
            empty where the system does not tell. Child processes count by themselves.
        file_bytes: Size on disk, external data included.
        weight_bytes: Sum of the initializers and constants.
        latency: One result per shape, relative to the original.
        fidelity: Closeness to the original, of the output that suffers most.
        metric: Task metric on the evaluation data.
        inherited: Fidelity and metric are those of the model before it, whose function it keeps.
        greedy: How much of the original's greedy text a decoder writes, too.
        drawn_back: What the accuracy guard did, where it had to act.
        checks: Names of the checks that held (`verifier`, `numerics`).
        notes: Sentences that a reader must see.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    file_bytes: int | None = None
    weight_bytes: int | None = None
    latency: tuple[LatencyResult, ...] = ()
    fidelity: Fidelity | None = None
    metric: MetricFigure | None = None
    inherited: bool = False
    greedy: GreedyText | None = None
    drawn_back: DrawnBack | None = None
    checks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def spent_on(self, activity: str) -> Iterator[None]:
        """Count time and peak memory of what happens inside to an activity."""
        tells = forget_peak()
        started = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - started
            self.seconds[activity] = self.seconds.get(activity, 0.0) + spent
            if tells:
                peak = max(self.peak_bytes.get(activity, 0), peak_memory())
                self.peak_bytes[activity] = peak


@dataclass(frozen=True)
class Original(Pass):
    """Stands for the model before the first pass; step 0 of every run."""

    name: ClassVar[str] = "original"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        return PassResult(modified=False)


class Workspace:
    """A private temporary folder in which each model is written once, for all who run it.

    Of models with external data each weight is written once, however many models have it.

    Args:
        write_form: Makes the form of a model in which it is written in the end.
    """

    def __init__(self, write_form: Callable[[Model], Model] | None = None) -> None:
        self._write_form = write_form
        self._written: WeakKeyDictionary[Model, Model] = WeakKeyDictionary()
        self._stack = ExitStack()
        self._saved: WeakKeyDictionary[Model, SavedModel] = WeakKeyDictionary()
        self._root: Path | None = None
        self._large: Path | None = None
        self._store: WeightStore | None = None

    def __enter__(self) -> Workspace:
        self._root = self._stack.enter_context(scratch_folder("run"))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def folder(self, name: str) -> Path:
        """Make and return a folder of its own."""
        assert self._root is not None, "the workspace is closed"
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._root))

    def written(self, model: Model) -> Model:
        """Return the form in which a model is written in the end; made once."""
        found = self._written.get(model)
        if found is None:
            found = self._write_form(model) if self._write_form is not None else model
            self._written[model] = found
        return found

    def path(self, model: Model) -> Path:
        """Return a file with the model as it stands. It must not change afterwards."""
        return self._save(model).files[0]

    def settle(self, model: Model) -> None:
        """Let go of the memory of a large model's weights: from here on they are mapped.

        A pass that changes gigabytes leaves them in memory, where a runtime copies them once more.
        The disk that has no room for them is no error.
        """
        from irtools.errors import FileError
        from irtools.model import Model as Read
        from irtools.model import place_of
        from irtools.model.writer import EXTERNAL_ABOVE

        if model.weight_bytes <= EXTERNAL_ABOVE or _bytes_in_memory(model) <= EXTERNAL_ABOVE // 3:
            return
        try:
            saved = Read.load(self.path(model)).ir.graph.initializers
        except FileError:
            return
        held = {name: value.const_value for name, value in model.ir.graph.initializers.items()}
        mapped = {
            id(tensor): saved[name].const_value
            for name, tensor in held.items()
            if name in saved and (kept := saved[name].const_value) is not None and place_of(kept)
        }
        for form in (model, self._written.get(model, model)):
            for value in form.ir.graph.initializers.values():
                value.const_value = mapped.get(id(value.const_value), value.const_value)

    def size(self, model: Model) -> int:
        """Bytes that the model takes on disk, external data included."""
        from irtools.model.writer import planned_size

        saved = self._saved.get(model)
        return planned_size(model.ir) if saved is None else saved.size

    def _save(self, model: Model) -> SavedModel:
        from irtools.model.writer import EXTERNAL_ABOVE

        found = self._saved.get(model)
        if found is None:
            folder = self.folder("model")
            if model.weight_bytes <= EXTERNAL_ABOVE:
                found = model.save(folder / "model.onnx", scratch=True)
            else:
                found = self._save_large(model, folder.name)
            self._saved[model] = found
        return found

    def _save_large(self, model: Model, name: str) -> SavedModel:
        from irtools.model import WeightStore

        if self._large is None or self._store is None:
            self._large, self._store = self.folder("weights"), WeightStore()
        path = self._large / f"{name}.onnx"
        return model.save(path, external_data=True, store=self._store, scratch=True)


def _bytes_in_memory(model: Model) -> int:
    from irtools.model import place_of, tensor_size

    tensors = (value.const_value for value in model.ir.graph.initializers.values())
    return sum(tensor_size(t) for t in tensors if t is not None and place_of(t) is None)


@dataclass
class Step:
    """One pass of a pipeline while it runs, and what came out.

    Attributes:
        index: Position in the pipeline, from 1; 0 for the original.
        total: Number of passes.
        pass_: The pass.
        original: The model before the first pass. Nobody changes it.
        before: The model before this pass. Nobody changes it.
        model: The model after this pass; `before` itself where nothing was modified. An
            instrument may put another one in its place.
        ctx: What the pass was given.
        workspace: Where the models of this run lie on disk.
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
    def written(self) -> Model:
        """The model after this step in the form in which it is written; the original as it is."""
        return self.model if self.model is self.original else self.workspace.written(self.model)

    @property
    def modified(self) -> bool:
        """Whether the model after the step differs from the one before it."""
        return self.model is not self.before


class Instrument:
    """Watches or enforces something around every pass. Every hook does nothing by default.

    The first instrument of a manager stands nearest to the pass: `after` hooks run in order,
    `before` hooks in reverse. A hook that raises ends the run like a failing pass.
    """

    name: ClassVar[str]

    def begin(self, step: Step) -> None:
        """Called once with step 0, the original model, before the first pass."""

    def should_run(self, step: Step) -> bool:
        """Whether the pass may run. It is skipped as soon as one instrument says no."""
        return True

    def before(self, step: Step) -> None:
        """Called before a pass runs."""

    def after(self, step: Step) -> None:
        """Called after a pass ran."""

    def end(self, step: Step) -> None:
        """Called once after the last pass that ran, with its step."""

    def failed(self, step: Step, error: Exception) -> None:
        """Called when the pass or a hook raised; the error is raised on afterwards."""
