"""The space of pipelines that a tuner draws from.

What a plan knows the cost of is solved and not drawn: which channels `prune` removes, which weights
get how many bits (`bits=auto` is a knapsack), which scales `smooth` takes. Drawn are the bounds
that such a plan is solved for, and what has no cost that is known before a model runs.

`sparsify` is not among them: its zeros change the time, the file and the memory of no target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from irtools.analysis.decoder import find_decoder
from irtools.driver.session import Session
from irtools.search.objectives import needs_times

__all__ = ["SPACE_VERSION", "Choose", "Space"]

SPACE_VERSION = 4
"""Trials of another one do not belong into the same study: they had other choices."""

Choose: TypeAlias = Callable[[str, Sequence[str]], str]
"""Draws one of several texts for the choice of a name."""

_NONE = "none"
_DECIBELS = ("20", "24", "28", "32")
"""What a knapsack over bits may be asked to keep of the outputs."""
_PRUNED: Mapping[str, tuple[str, ...]] = {
    "speedup": ("1.2", "1.4", "1.6", "1.9", "2.3", "2.8"),
    "ratio": ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"),
}
"""How much may be asked of pruning, by what it is measured in."""
_SCOPES = ("global", "local")


@dataclass(frozen=True)
class Space:
    """Which pipelines there are for a model, its data and its target.

    Attributes:
        has_data: Samples for ranges and refits are there.
        forms: Forms of weights that the target runs.
        is_decoder: The model has a cache.
        wants_size: An objective or a goal is about size or memory: weights may be stored in fewer
            bits without being multiplied so.
        may_time: An objective or a goal is about time, and passes may decide by it.
        batched: Models are timed on several samples at once, which may be padded.
    """

    has_data: bool
    forms: tuple[str, ...]
    is_decoder: bool
    wants_size: bool = False
    may_time: bool = False
    batched: bool = False

    @classmethod
    def of(
        cls, session: Session, objectives: Sequence[str] = (), *, may_time: bool = False
    ) -> Space:
        """Return the space of a session's model.

        Args:
            objectives: What is to become small.
            may_time: Passes may decide by times, since all trials run here, one after the other.
        """
        job = session.job
        decoder = find_decoder(job.model.ir) is not None
        sizes = job.settings.wanted.of("max-size", "max-memory")
        small = bool(sizes) or not {"size", "memory"}.isdisjoint(objectives)
        timed = may_time and job.bench is not None and needs_times(objectives, job.settings)
        forms = _forms(session, every=small or decoder)
        batched = job.bench is not None and max(job.bench.batch) > 1
        has_data = job.calibration is not None
        return cls(has_data, tuple(forms), decoder, small, timed, batched and not decoder)

    def draw(self, choose: Choose) -> str:
        """Return pipeline text, one choice after the other; later ones depend on earlier ones."""
        return ",".join(self._passes(choose))

    @property
    def first(self) -> tuple[dict[str, str], ...]:
        """The choices of what is tried first: the usual pipeline, then what a ladder would try.

        A search that begins with random draws needs most of 60 trials to get there.
        """
        usual = {
            self._amount: _NONE,
            "rotate": "false",
            "weights": "int8",
            "bits": "8",
            "embeddings": "8",
            "mode": "auto",
            "calibrator": "minmax",
            "outlier-floor": _NONE,
            "method": "auto",
            "smooth": "auto",
            "exits": _NONE,
            "padding": "computed",
            "projections": "apart",
        }
        dynamic = {**usual, "mode": "dynamic"}
        # What loses nothing more than they do.
        exact = ({**usual, "padding": "left out"},) if self.batched else ()
        exact = (*exact, {**usual, "projections": "one"})
        if not self.has_data:
            return usual, dynamic, *exact
        by = "speedup" if self.may_time else "ratio"
        less, more = (_PRUNED[by][place] for place in (1, 3))
        pruned = [{**usual, self._amount: by, by: much, "scope": "global"} for much in (less, more)]
        if self.is_decoder:
            return usual, dynamic, *exact, *pruned
        leaving = [{**one, "exits": "0.99", "exits-placed": "last"} for one in (usual, pruned[0])]
        return usual, dynamic, *exact, *leaving, *pruned

    @property
    def _amount(self) -> str:
        """The name of what pruning is measured by.

        A study knows one list of choices by a name, and one that began on workers may go on here.
        """
        return "pruned-here" if self.may_time else "pruned"

    def _passes(self, choose: Choose) -> Iterator[str]:
        yield "cleanup,fuse,sink"
        first = [*self._structure(choose)]
        if self.batched and choose("padding", ("computed", "left out")) == "left out":
            first.append("unpad")
        exits = ""
        form = choose("weights", (_NONE, *self.forms, *(("store",) if self.wants_size else ())))
        weights = self._weights(form, choose)
        if self.has_data and not self.is_decoder:
            agreement = choose("exits", (_NONE, "0.995", "0.99", "0.98"))
            exits = "" if agreement == _NONE else f"early-exit:agreement={agreement}"
        last = [text for text in (weights, exits) if text]
        # Exits are placed in the float32 model or in the quantized one, by what each answers.
        if len(last) == 2 and choose("exits-placed", ("last", "before weights")) != "last":
            last.reverse()
        yield from (*first, *last)
        # After all others, whose plans know each product by its name. A trial is timed as a whole,
        # so the pass need not time it as well.
        if choose("projections", ("apart", "one")) == "one":
            yield "merge-projections:when=always"

    def _structure(self, choose: Choose) -> Iterator[str]:
        """What changes the shape of weights, or the basis that they are in."""
        pruned = self._pruned(choose) if self.has_data else ""
        rotated = "rotate" if choose("rotate", ("false", "true")) == "true" else ""
        found = [text for text in (pruned, rotated) if text]
        if len(found) == 2 and choose("first", ("prune", "rotate")) == "rotate":
            found.reverse()
        yield from found

    def _pruned(self, choose: Choose) -> str:
        """How much goes: where that loses too much, the guard keeps the safest part of it."""
        by = choose(self._amount, (_NONE, *(("speedup",) if self.may_time else ()), "ratio"))
        if by == _NONE:
            return ""
        much = choose(by, _PRUNED[by])
        return f"prune:{by}={much}" + _option("scope", choose("scope", _SCOPES), _SCOPES[0])

    def _weights(self, form: str, choose: Choose) -> str:
        match form:
            case "int8":
                return f"int8{''.join(self._int8(choose))}"
            case "int4":
                return f"int4{''.join(self._int4(choose))}"
            case "store":
                return "store" + _option("form", choose("stored", ("s8", "f16", "fp8")), "s8")
            case _:
                return "" if form == _NONE else form

    def _int8(self, choose: Choose) -> Iterator[str]:
        if self.has_data and self.wants_size and choose("bits", ("8", "auto")) == "auto":
            yield f":bits=auto:min-sqnr={choose('least-sqnr', _DECIBELS)}"
            return
        if self.wants_size:
            yield _option("embeddings", choose("embeddings", ("8", "4")), "8")
        mode = choose("mode", ("auto", "static", "dynamic"))
        yield _option("mode", mode, "auto")
        if not self.has_data or mode == "dynamic":
            return
        calibrator = choose("calibrator", ("minmax", "mse", "percentile", "entropy"))
        yield _option("calibrator", calibrator, "minmax")
        yield _option("outlier-floor", choose("outlier-floor", (_NONE, "22", "26", "30")), _NONE)
        yield _option("method", choose("method", ("auto", "rtn", "gptq")), "auto")
        yield _option("smooth", choose("smooth", ("auto", "true", "false")), "auto")

    def _int4(self, choose: Choose) -> Iterator[str]:
        if self.has_data and choose("blocks", ("4", "auto")) == "auto":
            yield f":bits=auto:min-sqnr={choose('kept', _DECIBELS)}"
            return
        yield _option("block", choose("block", ("32", "64", "128")), "32")
        yield _option("embeddings", choose("tables", ("8", "4")), "8")
        if self.has_data:
            yield _option("method", choose("rounding", ("rtn", "gptq")), "rtn")


def _option(name: str, value: str, usual: str) -> str:
    return "" if value == usual else f":{name}={value}"


def _forms(session: Session, *, every: bool) -> Iterator[str]:
    """Yield forms of weights that the target multiplies fast, or every one that it runs."""
    table = session.job.target.capabilities
    yield "int8"
    if every and "int4" in table.weight_formats:
        yield "int4"
    if every or "float16" in table.compute_dtypes:
        yield "fp16"
    if "bfloat16" in table.compute_dtypes:
        yield "bf16"
