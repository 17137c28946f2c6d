"""The list of all models of the corpus, by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .writer import Built

__all__ = ["CorpusModel", "Refusal", "Register"]


@dataclass(frozen=True)
class Refusal:
    """One line that is right where there can be no result.

    Attributes:
        exit_code: Of `irc`.
        phrase: What the line says, among other things.
    """

    exit_code: int
    phrase: str


@dataclass(frozen=True)
class CorpusModel:
    """A model to be made, and what is true of it.

    Attributes:
        name: Unique, such as `lstm-bidirectional`.
        kind: What family of models it stands for.
        make: Returns it; the same every time.
        is_float: Its weights are float32 or float64, and large enough to be worth storing in
            8 bits: it counts where the ratio of sizes is measured.
        quick: Runs in the default suite.
        random: Answers differently each time.
        chooses: Sorts, selects or counts by the data: after a lossy pass outputs may hold other
            things, and other numbers of them.
        chosen: Outputs that are the best of another output, which is measured: where scores are
            nearly equal rounding swaps them, and their own variation is none to measure noise by.
        refusals: Pipelines that are refused, and how.
        least_sqnr: Where rounded weights cost this kind more than others: by pipeline, in dB.
    """

    name: str
    kind: str
    make: Callable[[], Built]
    is_float: bool = True
    quick: bool = False
    random: bool = False
    chooses: bool = False
    chosen: tuple[str, ...] = ()
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    least_sqnr: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Register:
    """The models of one kind, in their order in the file."""

    kind: str
    models: list[CorpusModel] = field(default_factory=list)

    def add(
        self, *, name: str = "", is_float: bool = True, quick: bool = False, random: bool = False,
        chooses: bool = False, chosen: tuple[str, ...] = (),
        refusals: Mapping[str, Refusal] | None = None,
        least_sqnr: Mapping[str, float] | None = None,
    ) -> Callable[[Callable[[], Built]], Callable[[], Built]]:  # fmt: skip
        """Return a decorator that puts a maker on the list under its own name."""

        def enter(make: Callable[[], Built]) -> Callable[[], Built]:
            title = name or str(getattr(make, "__name__", "")).replace("_", "-")
            self.models.append(
                CorpusModel(title, self.kind, make, is_float, quick, random, chooses,
                            chosen, refusals or {}, least_sqnr or {})
            )  # fmt: skip
            return make

        return enter
