"""Everything that decides the result of a run, apart from the model, the pipeline and the data."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from irtools.data import Dataset, DataSettings
from irtools.errors import OptionError, UsageError
from irtools.goals import Goals
from irtools.measure.base import BenchSettings
from irtools.measure.effort import Effort, TimedModels
from irtools.metrics import Metric
from irtools.plugins import suggest
from irtools.report.entries import AdapterEntry, FileEntry, SettingsEntry
from irtools.sources import LoadOptions
from irtools.targets import Target, find_target, target_text

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """How a pipeline is run, checked and measured. Prints as what differs from the default.

    Attributes:
        target: What to optimize for, such as `ort-cpu` or `ort-cpu:isa=avx2`.
        loading: How a source that is not an ONNX file becomes a model: task, cache, adapters.
        data: How data is read that is given as a path; `samples` bounds the calibration data, and
            `synthetic.sizes` are the sizes at which inputs are drawn.
        metric: Name of a metric or `module:function`, or several of them, the main one first;
            None: what labels of the evaluation data ask for, `multilabel-f1-micro` for rows of 0/1
            and `accuracy` for classes.
        bench: How to time models against the original; None: not at all. What is left at its
            default follows from the effort.
        timed: Which models are timed: after `each` pass, at the `end` of passes in a row that
            promise the same function, or the `last` one; None: by the effort.
        figures: Further figures to measure, such as `energy` and `first-run`.
        new_tokens: Tokens that a decoder with a cache writes to each prompt, to compare its text
            with the original's; 0: none; None: 32, but none where every pass keeps the function
            and there is no data.
        goals: What the result must keep, also as text (`max-drop=1%,speedup=3`). Passes that lose
            more of a metric, or of top-1 agreement without labels, are rolled back. What a model
            loses is decided on one half of the evaluation data, and quoted on the other.
        drop_slower: Undo lossy passes that make the model slower than it was.
        seed: Seed of every random choice.
        threads: Threads for running models; None: the CPU quota.
        check: Compare the numbers before and after each pass in a child process, and the result
            with the original. Without it only data given for evaluation is run.
        portable: Keep to standard operators in what is written and timed, so that other runtimes
            read it too. The target's own operators are faster on it.
        reproducer: Write a folder for `irc reproduce` when a pass fails.
        show_samples: Put texts and pictures of samples whose answer changed into the report, not
            their numbers alone.
        effort: How much time measuring may take: `quick`, `normal`, `thorough`, or seconds. On
            how much is measured is planned from the cost of one run of the model.

    Raises:
        UsageError: A value out of range, or settings that contradict each other.
    """

    target: str | Target = "ort-cpu"
    loading: LoadOptions = field(default_factory=LoadOptions)
    data: DataSettings = field(default_factory=DataSettings)
    metric: str | Metric | Sequence[str | Metric] | None = None
    bench: BenchSettings | None = field(default_factory=BenchSettings)
    timed: TimedModels | None = None
    figures: tuple[str, ...] = ()
    new_tokens: int | None = None
    goals: Goals | str = field(default_factory=Goals)
    drop_slower: bool = False
    seed: int = 0
    threads: int | None = None
    check: bool = True
    portable: bool = False
    reproducer: bool = True
    show_samples: bool = True
    effort: str | float | Effort = "normal"

    def __post_init__(self) -> None:
        if isinstance(self.goals, str):
            object.__setattr__(self, "goals", Goals.parse(self.goals))
        if self.bench is None and (timed := list(self.wanted.needing("times"))):
            raise UsageError(f"{timed[0].name} needs the benchmark, which is switched off")
        if self.new_tokens is not None and self.new_tokens < 0:
            raise UsageError(f"new-tokens is {self.new_tokens}, expected 0 or more")
        if self.drop_slower and self.bench is None:
            raise UsageError("drop-slower needs the benchmark, which is switched off")
        # Settings are checked where they are written down, not where they are first used.
        object.__setattr__(self, "effort", self.planned_effort)
        object.__setattr__(self, "figures", tuple(one.replace("-", "_") for one in self.figures))

    def changed(self, options: dict[str, Any]) -> Settings:
        """Return the settings with other values.

        Raises:
            OptionError: There is no such setting.
            UsageError: As the class.
        """
        known = [f.name for f in dataclasses.fields(self)]
        for name in options:
            if name not in known:
                raise OptionError(f"there is no setting {name!r}{suggest(name, known)}")
        return dataclasses.replace(self, **options)

    @property
    def wanted(self) -> Goals:
        """The goals."""
        assert isinstance(self.goals, Goals)
        return self.goals

    @property
    def metrics(self) -> tuple[str | Metric, ...]:
        """The metrics that are asked for, those of goals among them; the main one first."""
        given = _several(self.metric)
        names = {one if isinstance(one, str) else one.name for one in given}
        return (*given, *(name for name in self.wanted.metrics if name not in names))

    @property
    def planned_effort(self) -> Effort:
        """The effort as the measuring plan takes it."""
        return self.effort if isinstance(self.effort, Effort) else Effort.parse(self.effort)

    def find_target(self) -> Target:
        """Return the target.

        Raises:
            UsageError: There is no such target, or not on this machine.
        """
        return find_target(self.target) if isinstance(self.target, str) else self.target

    def entry(self, *data: Dataset | None) -> SettingsEntry:
        """Return the settings as the report has them, files with their hashes.

        Args:
            data: What was read: the tokenizer is the one that encoded it.
        """
        names = [one if isinstance(one, str) else one.name for one in self.metrics]
        return SettingsEntry(
            target=target_text(self.find_target()),
            metric=next(iter(names), None),
            further_metrics=tuple(names[1:]),
            goals=tuple(map(str, self.wanted)),
            timed=self.timed,
            figures=self.figures,
            new_tokens=self.new_tokens,
            drop_slower=self.drop_slower,
            seed=self.seed,
            threads=self.threads,
            check=self.check,
            portable=self.portable,
            show_samples=self.show_samples,
            effort=self.planned_effort.name,
            task=self.loading.task,
            opset=self.loading.opset,
            with_past=self.loading.with_past,
            part=self.loading.part,
            trust_remote_code=self.loading.trust_remote_code,
            fixed_sizes=dict(self.loading.sizes),
            adapters=tuple(
                AdapterEntry(str(folder), factor, _folder_hash(folder), self.loading.adapters_as)
                for folder, factor in self.loading.adapters
            ),
            tokenizer=_tokenizer(self.data.tokenizer, *data),
            text_columns=self.data.text_columns,
            label_column=self.data.label_column,
            max_length=self.data.max_length,
            samples=self.data.samples,
            drawn_sizes=dict(self.data.synthetic.sizes or {}),
        )

    def __str__(self) -> str:
        default = Settings()
        names = [f.name for f in dataclasses.fields(self)]
        changed = [name for name in names if getattr(self, name) != getattr(default, name)]
        return "\n".join(f"{name}: {_text(getattr(self, name))}" for name in changed)


def _several(
    metric: str | Metric | Sequence[str | Metric] | None,
) -> tuple[str | Metric, ...]:
    match metric:
        case None:
            return ()
        case tuple() | list():
            return tuple(metric)
        case _:
            return (cast("str | Metric", metric),)


def _text(value: Any) -> str:
    """Return a value; of a group of settings those that are not at their default."""
    if isinstance(value, Effort):
        return value.name
    if not dataclasses.is_dataclass(value) or isinstance(value, type | Target | Goals):
        return str(value)
    given = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    default = type(value)()
    return ", ".join(f"{name}={item}" for name, item in given if item != getattr(default, name))


def _tokenizer(given: Path | None, *data: Dataset | None) -> FileEntry | None:
    used = (one.texts.tokenizer for one in data if one is not None and one.texts is not None)
    path = next((path for path in used if path is not None), given)
    if path is None:
        return None
    file = path / "tokenizer.json" if path.is_dir() else path
    return FileEntry(str(path), _hash([file]))


def _folder_hash(folder: Path) -> str:
    return _hash(sorted(path for path in Path(folder).rglob("*") if path.is_file()))


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
