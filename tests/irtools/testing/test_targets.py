"""The contract of targets: ours keep to it, and broken ones are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from irtools.errors import UnsupportedError
from irtools.model import Model
from irtools.targets import (
    Artifact,
    Capabilities,
    Feeds,
    PackagedTarget,
    Runner,
    RunnerOptions,
    SessionRunner,
    find_target,
)
from irtools.testing import TINY_MODELS, ContractError, check_target

ALL = tuple(TINY_MODELS)


def test_onnxruntime() -> None:
    assert check_target(find_target("ort-cpu:isa=vnni")) == ALL


@pytest.mark.openvino
def test_openvino() -> None:
    assert check_target(find_target("openvino-cpu")) == ALL


class Through(SessionRunner):
    """Another runner, as it is."""

    runtime = "the tests"
    factor = 1.0

    def __init__(self, inner: Runner) -> None:
        super().__init__(inner, inner.slots, inner.output_names)

    def infer(self, feeds: Mapping[str, np.ndarray], wanted: Sequence[str]) -> Sequence[np.ndarray]:
        found = self.session.run(feeds, wanted)
        return [found[name] * np.float32(self.factor) for name in wanted]


@dataclass(frozen=True)
class Wrapped(PackagedTarget):
    """ONNX Runtime wrapped in a runner of the tests."""

    name: ClassVar[str] = "wrapped"
    summary: ClassVar[str] = "for tests"
    package: ClassVar[str] = "onnxruntime"
    kind: ClassVar[type[Through]] = Through

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    def runner(self, model: Model | Path, options: RunnerOptions = RunnerOptions()) -> Runner:
        return self.kind(find_target("ort-cpu:isa=vnni").runner(model, options))


def test_a_target_of_few_lines_keeps_to_the_contract() -> None:
    assert check_target(Wrapped()) == ALL
    assert Wrapped().version().startswith("onnxruntime ")


class Wrong(Through):
    factor = 1.01


class Careless(Through):
    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        known = {name: feeds[name] for name in self.input_names if name in feeds}
        return super().run(known, outputs)


class Undying(Through):
    def close(self) -> None:
        pass


class Mute(Through):
    def infer(self, feeds: Mapping[str, np.ndarray], wanted: Sequence[str]) -> Sequence[np.ndarray]:
        raise UnsupportedError("not today")


@pytest.mark.parametrize(
    ("runner", "reason"),
    [
        (Wrong, "differs by"),
        (Careless, "'no-input' is unknown, expected DataError"),
        (Undying, "a closed runner runs"),
        (Mute, "not today"),
    ],
)
def test_a_broken_rule_is_named(runner: type[Through], reason: str) -> None:
    @dataclass(frozen=True)
    class Broken(Wrapped):
        kind: ClassVar[type[Through]] = runner

    with pytest.raises(ContractError, match=reason):
        check_target(Broken())


def test_files_that_are_not_there() -> None:
    @dataclass(frozen=True)
    class Forgetful(Wrapped):
        def compile(
            self, model: Model, directory: Path, stem: str, *, format: str | None = None
        ) -> Artifact:
            found = super().compile(model, directory, stem, format=format)
            return Artifact((*found.files, directory / "more.bin"), found.kernels)

    with pytest.raises(ContractError, match="a file is missing"):
        check_target(Forgetful())


def test_a_target_that_runs_nothing() -> None:
    @dataclass(frozen=True)
    class Closed(Wrapped):
        def runner(self, model: Model | Path, options: RunnerOptions = RunnerOptions()) -> Runner:
            raise UnsupportedError("no model of this kind")

    with pytest.raises(ContractError, match="ran none of the models mlp"):
        check_target(Closed())
