"""Inputs and outputs that a release holds, so that `irc verify` can run the model elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from irtools.data import Dataset, SyntheticSettings, is_ragged, synthesize
from irtools.errors import DataError, FileError, UnsupportedError
from irtools.measure.drawable import drawn_for, run_with
from irtools.measure.jobs import run_several
from irtools.measure.sandbox import run_isolated
from irtools.measure.wire import decode, encode
from irtools.model import Model
from irtools.targets import Feeds, RunnerOptions, Target, target_text

__all__ = ["SAMPLES_FILE", "read_samples", "run_samples", "write_samples"]

SAMPLES_FILE = "samples.npz"
_COUNT = 4
_THREADS = 1
"""So that sums are added in one order, whatever the machine."""


def write_samples(
    folder: Path,
    main: Path,
    model: Model,
    target: Target,
    data: Dataset | None,
    sizes: Mapping[str, int],
    seed: int,
) -> str:
    """Run what was built on a few inputs, and write both next to it.

    Args:
        folder: Where to.
        main: What the target's runtime loads.
        model: As it was read back.
        data: Samples to take; None: they are drawn.
        sizes: Of open axes of drawn inputs.

    Returns:
        Why there are none; empty where there are.
    """
    try:
        if data is not None:
            feeds = _calls(data.spread(_COUNT))
            outputs = run_samples(main, target, feeds)
        else:
            with drawn_for(model, target, sizes) as drawn:
                feeds, outputs = run_with(
                    drawn,
                    lambda adapt: _drawn(main, model, target, adapt(_usual(seed))),
                )
    except (DataError, UnsupportedError) as error:
        return f"no samples to verify with: {error}"
    (folder / SAMPLES_FILE).write_bytes(encode({"feeds": feeds, "outputs": outputs}))
    return ""


def run_samples(
    main: Path, target: Target, feeds: Sequence[Feeds]
) -> list[Mapping[str, np.ndarray]]:
    """Run a built file on each of the feeds, in a child process.

    Raises:
        UnsupportedError: The runtime refuses it, or crashes on it.
        DataError: The feeds do not fit.
    """
    found: list[Mapping[str, np.ndarray]] = run_isolated(
        run_several,
        main.absolute(),
        target_text(target),
        RunnerOptions(threads=_THREADS),
        [dict(one) for one in feeds],
        label=f"{target.name} on {main.name}",
    )
    return found


def read_samples(path: Path) -> tuple[list[Feeds], list[Mapping[str, np.ndarray]]]:
    """Return inputs and outputs.

    Raises:
        FileError: It cannot be read.
        DataError: It is not such a file.
    """
    try:
        found = decode(path.read_bytes())
        return list(found["feeds"]), list(found["outputs"])
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not hold samples: {error}") from error


def _usual(seed: int) -> SyntheticSettings:
    return SyntheticSettings(samples=_COUNT, sequence=32, seed=seed)


def _drawn(
    main: Path, model: Model, target: Target, settings: SyntheticSettings
) -> tuple[list[Feeds], list[Mapping[str, np.ndarray]]]:
    feeds = _calls(synthesize(model, settings))
    return feeds, run_samples(main, target, feeds)


def _calls(data: Dataset) -> list[Feeds]:
    """Return samples one by one, or as many together as the model takes."""
    calls = list(data.batches(1))[:_COUNT]
    for call in calls:
        for name, array in call.items():
            if is_ragged(array) or array.dtype.kind == "O":
                raise DataError(f"input {name} does not hold numbers")
    return list(calls)
