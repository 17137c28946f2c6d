"""A release in use: the build for this machine, fed with texts or arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np

from irtools.builds.records import BuildRecord
from irtools.builds.release import read_release
from irtools.data import InputSpec, find_class_names, input_encoder
from irtools.driver.talk import Talker
from irtools.errors import DataError, TargetUnavailableError, UnknownNameError, UsageError
from irtools.metrics import find_output
from irtools.plugins import suggest
from irtools.targets import Feeds, Isa, Runner, RunnerOptions, find_target

__all__ = ["POOLED", "SCORES", "LoadedModel", "load", "named_builds", "tokenizer_files"]

_BATCH = 16
_PAIR = 2
SCORES = ("logits", "scores", "probabilities")
"""Parts of names of outputs that hold a score per class."""
POOLED = ("embed", "pool")
"""Parts of names of outputs that hold an embedding per text."""


class LoadedModel:
    """A built model that runs. A context manager; `close` frees it.

    Attributes:
        name: Of the build (`model/pipeline/target`).
        target: What runs it, as target text.
        classes: Names of its classes by number; empty where no file has them.
    """

    def __init__(self, name: str, target: str, folder: Path, runner: Runner) -> None:
        self.name = name
        self.target = target
        numbers = find_class_names([folder])
        self.classes = tuple(sorted(numbers, key=numbers.__getitem__))
        self._folder = folder
        self._runner = runner

    def run(self, feeds: Feeds) -> Mapping[str, np.ndarray]:
        """Return all outputs for arrays, by name.

        Raises:
            DataError: Feeds that do not fit, naming the input.
        """
        return self._runner.run(feeds)

    def predict(self, texts: Sequence[str | tuple[str, str]]) -> list[str]:
        """Return the class of each text or pair: its name, or its number where it has no name.

        Raises:
            DataError: The model gives no row of scores per text.
        """
        return [self.class_name(int(number)) for number in self.scores(texts).argmax(axis=-1)]

    def scores(self, texts: Sequence[str | tuple[str, str]]) -> np.ndarray:
        """Return a row for each text or pair, as the model gives it: [N, classes].

        Raises:
            DataError: The model gives no row of scores per text.
        """
        found: list[np.ndarray] = []
        for _, outputs in self._batches(texts):
            found.append(find_output(outputs, SCORES))
            if found[-1].ndim != 2:
                raise DataError(
                    f"{self.name} gives scores of shape {list(found[-1].shape)}, expected a row "
                    "per text"
                )
        return np.concatenate(found)

    def class_name(self, number: int) -> str:
        """Return the name of a class, or its number where it has no name."""
        return self.classes[number] if number < len(self.classes) else str(number)

    def encode(
        self, texts: Sequence[str | tuple[str, str]], *, normalize: bool = True
    ) -> np.ndarray:
        """Return the embedding of each text: float32 [N, D].

        It is what the model pools itself, else the mean of the last hidden states of the tokens.

        Args:
            normalize: Scale each to length 1.
        """
        found = [_pooled(feeds, outputs) for feeds, outputs in self._batches(texts)]
        vectors = np.concatenate(found).astype(np.float32)
        if normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
        return vectors

    def generate(self, prompt: str, *, new_tokens: int = 128, raw: bool = False) -> Iterator[str]:
        """Continue a prompt by the likeliest token at each step; yields the text as it comes.

        Args:
            prompt: What is asked; it goes through the model's chat template if there is one.
            new_tokens: Most tokens to write.
            raw: Continue the text as it is.

        Raises:
            UnsupportedError: The model does not write text.
            FileError: There is no tokenizer next to it.
            DataError: The template fails, or the prompt has no tokens or fills the context.
        """
        talker = self.talker()
        tokens = talker.raw(prompt) if raw else talker.chat(prompt)
        return (piece.text for piece in talker.write(tokens, new_tokens))

    def talker(self) -> Talker:
        """Return the model with its tokenizer and chat template; raises as `generate`."""
        return Talker(self._runner, self._folder, self.name)

    def close(self) -> None:
        """Free the model."""
        self._runner.close()

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _batches(
        self, texts: Sequence[str | tuple[str, str]]
    ) -> Iterator[tuple[Feeds, Mapping[str, np.ndarray]]]:
        if isinstance(texts, str) or not texts:
            raise DataError("expected a list of texts, or of pairs of texts")
        rows = [_row(number, text) for number, text in enumerate(texts)]
        inputs = self.inputs
        fixed = inputs[0].shape[0] if inputs and inputs[0].shape else None
        step = fixed if isinstance(fixed, int) else _BATCH
        for start in range(0, len(rows), step):
            taken = rows[start : start + step]
            padded = [*taken, *[taken[-1]] * (step - len(taken) if isinstance(fixed, int) else 0)]
            made = self._encode(padded)
            feeds = {spec.name: made[spec.name].astype(spec.dtype) for spec in inputs}
            outputs = self._runner.run(feeds)
            count = len(taken)
            yield (
                {name: array[:count] for name, array in feeds.items()},
                {name: array[:count] for name, array in outputs.items()},
            )

    @cached_property
    def inputs(self) -> list[InputSpec]:
        """What `run` must be fed."""
        slots = [slot for slot in self._runner.slots if slot.required]
        return [
            InputSpec(slot.name, slot.dtype or np.dtype(np.int64), slot.shape) for slot in slots
        ]

    @cached_property
    def _encode(self) -> Callable[[Sequence[tuple[str, ...]]], dict[str, np.ndarray]]:
        return input_encoder(self.inputs, tokenizer_files(self._folder))


def tokenizer_files(folder: Path) -> dict[str, bytes]:
    """Return the files of the tokenizer that a build has, by name; empty where it has none."""
    names = ("tokenizer.json", "tokenizer_config.json")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def load(
    folder: str | os.PathLike[str], build: str | None = None, *, threads: int | None = None
) -> LoadedModel:
    """Open the build of a release that suits this machine best.

    Of builds that run here that for the newest instruction set is taken, then the one that was
    fastest when it was built, then the smallest.

    Args:
        folder: A release.
        build: A build (`model/pipeline/target`), or the name of a model or `model/pipeline`; None:
            whatever model there is, which must be one.
        threads: Threads for running it; None: the runtime's choice.

    Raises:
        FileError: There is no release.
        UnknownNameError: It has no such build.
        UsageError: It has several models, and none is named.
        TargetUnavailableError: None of its builds runs here.
    """
    path = Path(folder)
    manifest = read_release(path)
    chosen = _chosen(named_builds(manifest.builds, build, path), path)
    target = find_target(chosen.inputs.target)
    place = path / chosen.name
    runner = target.runner(place / chosen.main, RunnerOptions(threads=threads))
    return LoadedModel(chosen.name, chosen.inputs.target, place, runner)


def named_builds(
    builds: Sequence[BuildRecord], wanted: str | None, folder: Path
) -> tuple[BuildRecord, ...]:
    """Return the builds of a release that a name means: whole, or its beginning.

    Raises:
        UnknownNameError: There is none.
        UsageError: Nothing is named, and there are several models.
    """
    if wanted is not None:
        found = tuple(b for b in builds if b.name == wanted or b.name.startswith(f"{wanted}/"))
        if not found:
            names = [build.name for build in builds]
            raise UnknownNameError(f"{folder} has no build {wanted!r}{suggest(wanted, names)}")
        return found
    models = list(dict.fromkeys(build.name.split("/")[0] for build in builds))
    if len(models) > 1:
        raise UsageError(f"{folder} has several models: say which of {', '.join(models)}")
    return tuple(builds)


def _chosen(builds: Sequence[BuildRecord], folder: Path) -> BuildRecord:
    reasons: list[str] = []
    running: list[BuildRecord] = []
    for build in builds:
        try:
            isa = find_target(build.inputs.target).isa
        except TargetUnavailableError as error:
            reasons.append(str(error))
            continue
        if isa.runs_on(Isa.detect()):
            running.append(build)
        else:
            reasons.append(f"{build.name} is for {isa.value}")
    if not running:
        raise TargetUnavailableError(
            f"no build of {folder} runs here, on {Isa.detect().value}: {'; '.join(reasons)}"
        )
    return min(running, key=_rank)


def _rank(build: BuildRecord) -> tuple[float, float, int]:
    """Order builds that run here, the best first."""
    isa = find_target(build.inputs.target, check=False).isa
    speedup = build.scores.speedup
    return -isa.newness, 0.0 if speedup is None else -speedup[0], build.scores.bytes


def _row(number: int, text: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return a text or a pair of texts as a row."""
    parts = (text,) if isinstance(text, str) else text
    strange = not isinstance(parts, tuple | list) or any(not isinstance(p, str) for p in parts)
    if strange or not 1 <= len(parts) <= _PAIR:
        raise DataError(f"text {number} is {text!r:.60}, expected a text, or a pair of texts")
    return tuple(parts)


def _pooled(feeds: Feeds, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    numbers = {name: array for name, array in outputs.items() if array.dtype.kind == "f"}
    pooled = [a for n, a in numbers.items() if a.ndim == 2 and any(w in n for w in POOLED)]
    if pooled:
        return pooled[0]
    states = {name: array for name, array in numbers.items() if array.ndim == 3}
    if not states:
        rows = [a for n, a in numbers.items() if a.ndim == 2 and not any(w in n for w in SCORES)]
        if not rows:
            shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in outputs.items())
            raise DataError(f"the model gives {shapes}: not embeddings of texts")
        return rows[0]
    hidden = find_output(states, ("last_hidden_state", "hidden"))
    mask = next((a for name, a in feeds.items() if "mask" in name), None)
    if mask is None:
        return np.asarray(hidden.mean(axis=1))
    weights = mask[..., None].astype(np.float32)
    return np.asarray((hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1))
