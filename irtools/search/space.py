"""The space of pipelines that a tuner draws from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from irtools.analysis.decoder import find_decoder
from irtools.driver.session import Session

__all__ = ["Choose", "Space"]

Choose: TypeAlias = Callable[[str, Sequence[str]], str]
"""Draws one of several texts for the choice of a name."""

_NONE = "none"


@dataclass(frozen=True)
class Space:
    """Which pipelines there are for a model, its data and its target.

    Attributes:
        has_data: Samples for ranges and refits are there.
        forms: Forms of weights that the target runs.
        is_decoder: The model has a cache.
    """

    has_data: bool
    forms: tuple[str, ...]
    is_decoder: bool

    @classmethod
    def of(cls, session: Session) -> Space:
        """Return the space of a session's model."""
        job = session.job
        decoder = find_decoder(job.model.ir) is not None
        return cls(job.calibration is not None, tuple(_forms(session)), decoder)

    def draw(self, choose: Choose) -> str:
        """Return pipeline text, one choice after the other; later ones depend on earlier ones."""
        return ",".join(self._passes(choose))

    @property
    def usual(self) -> dict[str, str]:
        """The choices of what is tried first: the usual pipeline."""
        return {
            "pruned": "0",
            "weights": "int8",
            "embeddings": "8",
            "mode": "auto",
            "calibrator": "minmax",
            "outlier-floor": _NONE,
            "method": "auto",
            "smooth": "auto",
            "exits": _NONE,
        }

    def _passes(self, choose: Choose) -> Iterator[str]:
        yield "cleanup,fuse,sink"
        if self.has_data:
            share = choose("pruned", ("0", "0.05", "0.1", "0.15", "0.2", "0.3", "0.4"))
            if share != "0":
                scope = choose("scope", ("global", "local"))
                yield f"prune:ratio={share}" + _option("scope", scope, "global")
        form = choose("weights", (_NONE, *self.forms))
        if form == "int8":
            yield f"int8{''.join(self._int8(choose))}"
        elif form == "int4":
            yield f"int4{''.join(self._int4(choose))}"
        elif form != _NONE:
            yield form
        if self.has_data and not self.is_decoder:
            agreement = choose("exits", (_NONE, "0.995", "0.99", "0.98"))
            if agreement != _NONE:
                yield f"early-exit:agreement={agreement}"

    def _int8(self, choose: Choose) -> Iterator[str]:
        yield _option("embeddings", choose("embeddings", ("8", "4")), "8")
        if not self.has_data:
            yield _option("mode", choose("mode", ("auto", "static", "dynamic")), "auto")
            return
        calibrator = choose("calibrator", ("minmax", "mse", "percentile", "entropy"))
        yield _option("calibrator", calibrator, "minmax")
        yield _option("outlier-floor", choose("outlier-floor", (_NONE, "22", "26", "30")), _NONE)
        yield _option("method", choose("method", ("auto", "rtn", "gptq")), "auto")
        yield _option("smooth", choose("smooth", ("auto", "true", "false")), "auto")

    def _int4(self, choose: Choose) -> Iterator[str]:
        yield _option("block", choose("block", ("32", "64", "128")), "32")
        yield _option("embeddings", choose("tables", ("8", "4")), "8")
        if self.has_data:
            yield _option("method", choose("rounding", ("rtn", "gptq")), "rtn")


def _option(name: str, value: str, usual: str) -> str:
    return "" if value == usual else f":{name}={value}"


def _forms(session: Session) -> Iterator[str]:
    table = session.job.target.capabilities
    yield "int8"
    if "int4" in table.weight_formats:
        yield "int4"
    yield "fp16"
    if "bfloat16" in table.compute_dtypes:
        yield "bf16"
