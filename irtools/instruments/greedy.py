"""Whether a decoder still writes the text of the original."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from irtools.analysis.decoder import TextDecoder, find_text_decoder
from irtools.data import Dataset, SyntheticSettings, is_ragged, longest_text, synthesize
from irtools.errors import DataError, UnsupportedError, VerificationError
from irtools.instruments.budget import Budget
from irtools.instruments.fidelity import keeps_function
from irtools.instruments.promises import RELATIVE_L2
from irtools.measure.generate import (
    GreedyText,
    Writing,
    compare_writings,
    surest_difference,
)
from irtools.measure.jobs import write_text
from irtools.measure.sandbox import ChildLimits, run_isolated
from irtools.model import Model
from irtools.passmanager import Exactness, Instrument, Step
from irtools.targets import RunnerOptions, Target, target_text

__all__ = ["Greedy", "choose_prompts"]

_PROMPTS = 8
_PROMPT_TOKENS = 16
_TIE = 4 * RELATIVE_L2
"""Lead of a token, over the norm of all logits, below which rounding may choose another one.

Two logits of a row whose relative L2 error is e differ by at most sqrt(2) e norms from what they
should; twice that, because the cache carries errors of its own.
"""
_LEAST_TOKENS = 4
_LIMITS = ChildLimits(seconds=1800.0)


class Greedy(Instrument):
    """Lets a decoder continue prompts and compares the text with the original's.

    The likeliest token is taken at each step, through the cache if there is one, in the form that
    is written, in a child process. As long as every pass so far promises the same function,
    another text is an error, unless the original itself could not tell the two tokens apart. After
    a lossy pass it is a figure.

    Args:
        target: What runs the models.
        threads: Threads; None: the runtime's choice.
        data: Where prompts come from; else token ids are drawn.
        new_tokens: Tokens to write to each prompt.
        seed: Seed of drawn prompts.
        check: Refuse another text where the same is promised.
        budget: How long the original may need to write before fewer tokens are compared, and
            whether passes in a row that keep the function are compared once, after the last.

    Raises:
        VerificationError: The text is another one although no pass is lossy.
    """

    name: ClassVar[str] = "greedy-text"

    def __init__(
        self,
        target: Target,
        threads: int | None = None,
        data: Dataset | None = None,
        *,
        new_tokens: int = 32,
        seed: int = 0,
        check: bool = True,
        budget: Budget | None = None,
    ) -> None:
        self._target = target
        self._options = RunnerOptions(threads=threads)
        self._data = data
        self._new_tokens = new_tokens
        self._seed = seed
        self._check = check
        self._budget = budget or Budget()
        self._waiting = False
        self._decoder: TextDecoder | None = None
        self._prompts = np.zeros((0, 0), np.int64)
        self._source = ""
        self._original: Writing | None = None
        self._last: GreedyText | None = None
        self._lossy = False

    def begin(self, step: Step) -> None:
        decoder = find_text_decoder(step.original.ir)
        if decoder is None or not self._new_tokens:
            return
        try:
            self._prompts, self._source = choose_prompts(
                step.original, decoder, self._data, self._seed
            )
            self._new_tokens = self._room(step.original)
            self._decoder = decoder
            self._original = self._within_bounds(step)
        except (DataError, UnsupportedError) as error:
            step.figures.notes.append(f"no greedy text is compared: {error}")

    def after(self, step: Step) -> None:
        if self._original is None:
            return
        coming = step.following not in (None, Exactness.LOSSY)
        if step.modified and coming and self._budget.plan.inherits and keeps_function(step):
            self._waiting = True
            return
        if step.modified or self._waiting:
            self._waiting = False
            self._lossy |= step.pass_.promise is Exactness.LOSSY
            if step.model.companions != step.before.companions:
                step.figures.notes.append(
                    "greedy text is not compared from here on: the model has other tokens"
                )
                self._original = self._last = None
                return
            found = self._write(step, step.deployed, self._options)
            self._last = compare_writings(
                self._original, found, self._prompts.shape[1], self._source
            )
            if self._check and not self._lossy:
                self._hold_promise(step, found)
        step.figures.put(self._last)

    def _within_bounds(self, step: Step) -> Writing:
        """Let the original write, and leave out tokens for which there is no time."""
        wanted, most = self._new_tokens, self._budget.plan.text_seconds
        written = self._write(step, step.original, self._options, most)
        self._new_tokens = written.tokens.shape[1]
        if self._new_tokens < wanted:
            step.figures.notes.append(
                f"greedy text: {self._new_tokens} of {wanted} new tokens are compared, those that "
                f"the original writes in {most:g} s"
            )
        return written

    def _room(self, model: Model) -> int:
        """Return how many new tokens a model holds positions for after the prompts."""
        prompts, length = self._prompts.shape
        limit = longest_text(model.ir, length + self._new_tokens, prompts)
        return self._new_tokens if limit is None else max(1, limit - length)

    def _hold_promise(self, step: Step, found: Writing) -> None:
        """Raise where the text differs by more than a tie."""
        assert self._original is not None and self._last is not None
        if self._last.first_difference is None:
            step.figures.checks.append(self.name)
            return
        where = (
            f"the greedy text of {self._last.prompts - self._last.equal} of "
            f"{self._last.prompts} prompts differs from the original's, first at new token "
            f"{self._last.first_difference}"
        )
        before, after = self._original, found
        precision = self._target.default_precision()
        if precision != "float32":
            # What the runtime rounds away by itself would hide what the pass did.
            exact = RunnerOptions(threads=self._options.threads, exact=True)
            before = self._write(step, step.original, exact)
            after = self._write(step, step.model, exact)
        margin = surest_difference(before, after)
        if margin > _TIE:
            raise VerificationError(
                f"{where}, although every pass so far promises the same function; the original "
                f"preferred its own token by {margin:.2g} of the logits' norm, and rounding "
                f"explains at most {_TIE:.0e}"
            )
        tie = "the original's two best tokens tie there"
        why = tie if precision == "float32" else f"{precision} rounds so; in float32 it is the same"
        step.figures.notes.append(f"{where}: {why}")

    def _write(
        self, step: Step, model: Model, options: RunnerOptions, seconds: float = float("inf")
    ) -> Writing:
        answer = run_isolated(
            write_text,
            step.workspace.path(model),
            target_text(self._target),
            options,
            self._decoder,
            self._prompts,
            self._new_tokens,
            seconds,
            _LEAST_TOKENS,
            limits=_LIMITS,
            label=f"{self._target.name} writing text",
        )
        return Writing(**answer)


def choose_prompts(
    model: Model, decoder: TextDecoder, data: Dataset | None, seed: int
) -> tuple[np.ndarray, str]:
    """Return prompts of one length, [K, P], and where they come from.

    Of samples of text the first 16 tokens are taken, fewer where most are shorter. There are 8
    prompts, or as many as make whole batches of a model that insists on their size.

    Raises:
        DataError: None can be drawn.
    """
    step = decoder.batch or 1
    if data is None or decoder.ids not in data.feeds:
        count = max(_PROMPTS // step, 1) * step
        settings = SyntheticSettings(
            samples=count, sequence=_PROMPT_TOKENS, seed=seed, vary_lengths=False
        )
        drawn = synthesize(model, settings)
        return drawn.feeds[decoder.ids].astype(np.int64), drawn.source
    texts = _texts(data.feeds[decoder.ids], data.feeds.get(decoder.mask or ""))
    lengths = np.array([len(text) for text in texts])
    count = max(min(_PROMPTS, len(texts)) // step, 1) * step
    length = int(min(_PROMPT_TOKENS, np.sort(lengths)[-count]))
    if not length:
        raise DataError(f"{data.source} holds no {count} texts with a token")
    long_enough = np.flatnonzero(lengths >= length)
    chosen = long_enough[np.arange(count) * len(long_enough) // count]
    return np.stack([texts[row][:length] for row in chosen]).astype(np.int64), data.source


def _texts(ids: np.ndarray, mask: np.ndarray | None) -> list[np.ndarray]:
    """Return the tokens of each sample without padding; of a whole call those of its first row."""

    def rows(array: np.ndarray) -> list[np.ndarray]:
        return [call[0] for call in array] if is_ragged(array) else list(array)

    if mask is None or mask.shape != ids.shape:
        return rows(ids)
    return [row[kept != 0] for row, kept in zip(rows(ids), rows(mask), strict=True)]
