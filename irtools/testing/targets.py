"""What every target must keep to, ours and those of other packages alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from irtools.data import SyntheticSettings, synthesize
from irtools.errors import DataError, IrtoolsError, UnsupportedError
from irtools.files import scratch_folder
from irtools.model import Model
from irtools.targets import Feeds, Runner, RunnerOptions, Target, find_target
from irtools.testing.contract import ContractError
from irtools.testing.models import TINY_MODELS, read_model

__all__ = ["check_target"]

TOLERANCE = 1e-4
"""Relative L2 error of a float32 model that is run as it says (`exact`)."""
WRITTEN_TOLERANCE = 0.05
"""The same of what is written for deployment: a runtime may compute in 16 bits there."""


def check_target(
    target: Target, models: Mapping[str, Model | str] | None = None
) -> tuple[str, ...]:
    """Hold a target to its contract on several models.

    Args:
        target: The target; this machine must have it.
        models: Models, or ONNX texts, by name. None: the tiny ones of `irtools.testing`.

    Returns:
        Names of the models that it ran; others it refused by UnsupportedError.

    Raises:
        ContractError: A rule is broken, or the target ran none of the models.
    """
    target.check_available()
    found = {n: make() for n, make in TINY_MODELS.items()} if models is None else dict(models)
    ran = []
    for name, given in found.items():
        model = read_model(given) if isinstance(given, str) else given
        try:
            target.runner(model, RunnerOptions(exact=True)).close()
        except UnsupportedError:
            continue
        for rule in (_numbers, _refusals, _written):
            try:
                rule(target, model)
            except (AssertionError, IrtoolsError) as error:
                raise ContractError(f"{target.name} on {name}: {error}") from error
        ran.append(name)
    if not ran:
        raise ContractError(f"{target.name} ran none of the models {', '.join(found)}")
    return tuple(ran)


def _feeds(model: Model) -> Feeds:
    return synthesize(model, SyntheticSettings(samples=3, sequence=12)).feeds


def _numbers(target: Target, model: Model) -> None:
    """A model is run as it says: names, order, types, and numbers."""
    feeds = _feeds(model)
    options = RunnerOptions(exact=True, threads=1)
    with find_target("ort-cpu").runner(model, options) as reference:
        expected = reference.run(feeds)
        names = tuple(reference.output_names)
    with target.runner(model, options) as runner:
        assert tuple(runner.output_names) == names, f"outputs are {runner.output_names}"
        _compare(expected, runner.run(feeds), TOLERANCE)
        one = runner.run(feeds, names[-1:])
        assert list(one) == [names[-1]], f"asked for {names[-1]!r}, got {', '.join(one)}"
        assert runner.run(feeds, []) == {}, "asked for no output, got some"


def _compare(expected: Feeds, found: Feeds, tolerance: float) -> None:
    assert list(found) == list(expected), f"outputs are {', '.join(found)}"
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, f"output {name!r} is {found[name].dtype}"
        assert found[name].shape == array.shape, f"output {name!r} has shape {found[name].shape}"
        norm = max(float(np.linalg.norm(array)), 1e-30)
        error = float(np.linalg.norm((found[name] - array).astype(np.float64))) / norm
        assert error <= tolerance, f"output {name!r} differs by {error:.1e} (relative L2)"


def _refusals(target: Target, model: Model) -> None:
    """What does not fit is refused by name, and a closed runner runs nothing."""
    feeds = dict(_feeds(model))
    first = next(iter(feeds))
    others = {name: array for name, array in feeds.items() if name != first}
    runner = target.runner(model, RunnerOptions(exact=True))
    with runner:
        _refuses(runner, others, f"input {first!r} is missing")
        _refuses(runner, feeds | {"no-input": feeds[first]}, "'no-input' is unknown")
        _refuses(runner, feeds | {first: feeds[first].astype(np.float64)}, "a type is wrong")
        _refuses(runner, feeds, "the output is unknown", ["no-output"])
    try:
        runner.run(feeds)
    except UnsupportedError:
        return
    raise AssertionError("a closed runner runs, expected UnsupportedError")


def _refuses(runner: Runner, feeds: Feeds, what: str, outputs: Sequence[str] | None = None) -> None:
    try:
        runner.run(feeds, outputs)
    except DataError:
        return
    raise AssertionError(f"it runs although {what}, expected DataError")


def _written(target: Target, model: Model) -> None:
    """What is written for deployment is there, and runs."""
    feeds = _feeds(model)
    before = model.fingerprint()
    with target.runner(model, RunnerOptions(exact=True)) as runner:
        expected = runner.run(feeds)
    for form in target.formats:
        with scratch_folder("check") as folder:
            artifact = target.compile(model, folder, "model", format=form)
            assert artifact.files[0] == folder / f"model.{form}", "the first file is another"
            assert all(path.is_file() for path in artifact.files), "a file is missing"
            with target.runner(artifact.files[0]) as runner:
                _compare(expected, runner.run(feeds), WRITTEN_TOLERANCE)
    assert model.fingerprint() == before, "compile changed the model of the caller"
