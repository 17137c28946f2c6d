"""The text that a decoder writes when it always takes the likeliest token.

Imports nothing but numpy, so that a child process costs little time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from irtools.analysis.decoder import TextDecoder
from irtools.measure.figures import Column, Figure, Measured
from irtools.targets import begin_text
from irtools.words import counted

if TYPE_CHECKING:
    from irtools.targets import Runner

__all__ = [
    "GreedyText",
    "Writing",
    "compare_writings",
    "equal_lengths",
    "surest_difference",
    "write_greedily",
]


@dataclass(frozen=True)
class Writing:
    """What a decoder wrote.

    Attributes:
        tokens: New tokens, int64 [K, T].
        margins: By how much the likeliest token led the next one, in units of the L2 norm of all
            logits, [K, T]: a lead as small as the rounding of a runtime decides nothing.
    """

    tokens: np.ndarray
    margins: np.ndarray


def _cell(figure: GreedyText, original: GreedyText | None) -> str:
    return f"{figure.equal}/{figure.prompts}"


@dataclass(frozen=True)
class GreedyText(Figure):
    """How much of the original's greedy text a model writes, too.

    Attributes:
        prompts: Prompts.
        prompt_tokens: Tokens of each.
        new_tokens: Tokens written to each.
        equal: Prompts to which all new tokens are the original's.
        share: Of the new tokens, those before the first other one of their prompt.
        first_difference: The earliest new token that is another one, counted from 1 in any of the
            prompts; None where there is none.
        source: Where the prompts come from.
    """

    key: ClassVar[str] = "greedy"
    rank: ClassVar[int] = 60
    columns: ClassVar[tuple[Column, ...]] = (Column("text", _cell),)

    prompts: int
    prompt_tokens: int
    new_tokens: int
    equal: int
    share: float
    first_difference: int | None
    source: str

    @classmethod
    def summary(cls, rows: Sequence[Measured]) -> Iterator[str]:
        found = cls.of(rows[-1])
        if found is None:
            return
        prompts = counted(found.prompts, "prompt")
        if found.first_difference is None:
            yield f"the same greedy text ({prompts}, {counted(found.new_tokens, 'new token')} each)"
        else:
            yield (
                f"the same greedy text for {found.equal} of {prompts}, the first other token at "
                f"{found.first_difference} of {found.new_tokens}"
            )

    @classmethod
    def legend(cls, report: Any) -> Iterator[str]:
        found = cls.of(report.rows[-1])
        if found is not None:
            yield (
                f"text: prompts of {counted(found.prompt_tokens, 'token')} ({found.source}) "
                f"whose next {found.new_tokens} are the original's"
            )


def write_greedily(
    runner: Runner,
    decoder: TextDecoder,
    prompts: np.ndarray,
    new_tokens: int,
    seconds: float = float("inf"),
    least: int = 1,
) -> Writing:
    """Continue prompts by the likeliest token at each step, through the cache if there is one.

    Args:
        runner: The model.
        decoder: Its inputs and outputs.
        prompts: Token ids without padding, [K, P].
        new_tokens: Tokens to write, T; an end of the text does not end it.
        seconds: Once they are over, no further token is begun.
        least: Tokens that are written however long they take.

    Raises:
        DataError: The model does not run on them.
    """
    size = decoder.batch or len(prompts)
    starts = range(0, len(prompts), size)
    parts: list[Writing] = []
    for start in starts:
        # All texts get as many tokens as there is time for in the first ones.
        most = float("inf") if parts else seconds / len(starts)
        part = _write(runner, decoder, prompts[start : start + size], new_tokens, most, least)
        new_tokens = part.tokens.shape[1]
        parts.append(part)
    return Writing(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.margins for part in parts]),
    )


def compare_writings(
    original: Writing, found: Writing, prompt_tokens: int, source: str
) -> GreedyText:
    """Compare token by token; what follows another token is another text."""
    prompts, new_tokens = original.tokens.shape
    lengths = equal_lengths(original, found)
    differ = lengths < new_tokens
    return GreedyText(
        prompts=prompts,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        equal=int(np.count_nonzero(~differ)),
        share=float(lengths.sum() / original.tokens.size),
        first_difference=int(lengths.min()) + 1 if differ.any() else None,
        source=source,
    )


def equal_lengths(original: Writing, found: Writing) -> np.ndarray:
    """Return how many tokens of each prompt's text are equal from its start, [K]."""
    same = original.tokens == found.tokens
    return np.asarray(np.where(same.all(axis=1), same.shape[1], same.argmin(axis=1)))


def surest_difference(original: Writing, found: Writing) -> float:
    """Return the largest margin that the original had where a text first differs; 0: all equal."""
    lengths = equal_lengths(original, found)
    rows = np.flatnonzero(lengths < original.tokens.shape[1])
    return float(original.margins[rows, lengths[rows]].max(initial=0.0))


def _write(
    runner: Runner,
    decoder: TextDecoder,
    prompts: np.ndarray,
    new_tokens: int,
    seconds: float,
    least: int,
) -> Writing:
    tokens: list[np.ndarray] = []
    margins: list[np.ndarray] = []
    ids, text = prompts, begin_text(runner, decoder, len(prompts))
    deadline = time.monotonic() + seconds
    while len(tokens) < new_tokens:
        if len(tokens) >= least and time.monotonic() > deadline:
            break
        logits = text.read(ids)[:, -1].astype(np.float32)
        ids = logits.argmax(axis=-1)[:, None]
        tokens.append(ids[:, 0])
        margins.append(_margins(logits))
    return Writing(np.stack(tokens, axis=1), np.stack(margins, axis=1))


def _margins(logits: np.ndarray) -> np.ndarray:
    top = np.partition(logits, -2, axis=-1)[:, -2:]
    norms = np.linalg.norm(logits, axis=-1)
    return np.asarray((top[:, 1] - top[:, 0]) / np.where(norms > 0, norms, 1.0))
