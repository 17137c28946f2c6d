"""Targets by text, and text by targets: options are the fields of the class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import pytest

from irtools.errors import OptionError, UsageError
from irtools.model import Model
from irtools.plugins import registry
from irtools.targets import (
    Capabilities,
    Isa,
    PackagedTarget,
    Runner,
    RunnerOptions,
    find_target,
    option_words,
    target_text,
)


@dataclass(frozen=True)
class Device(PackagedTarget):
    """A device with options of its own."""

    name: ClassVar[str] = "device"
    summary: ClassVar[str] = "for tests"
    package: ClassVar[str] = "numpy"

    num_cores: int | None = None
    turbo: bool = False
    memory: int | None = 8
    kernels: str = "all"
    folder: Path = Path()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    def runner(self, model: Model | Path, options: RunnerOptions = RunnerOptions()) -> Runner:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = registry.plugins
    own = {"device": EntryPoint("device", f"{__name__}:Device", "irtools.targets")}

    def found(group: str) -> Mapping[str, EntryPoint]:
        return {**plugins(group), **(own if group == "irtools.targets" else {})}

    monkeypatch.setattr(registry, "plugins", found)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("device:isa=avx2", Device(Isa.AVX2)),
        ("device:isa=vnni:num-cores=2", Device(Isa.VNNI, num_cores=2)),
        ("device:isa=vnni:num-cores=2:turbo=true", Device(Isa.VNNI, 2, True)),
        ("device:isa=vnni:memory=none:kernels=a=b", Device(Isa.VNNI, memory=None, kernels="a=b")),
    ],
)
def test_text_and_target_are_inverse(text: str, target: Device) -> None:
    assert find_target(text) == target
    assert target_text(target) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("device:num-core=2", "has no option 'num-core'; did you mean 'num-cores'"),
        ("device:num-cores=two", "num-cores is 'two', expected a whole number"),
        ("device:turbo=yes", "turbo is 'yes', expected true or false"),
        ("device:turbo", "'turbo' is not an option, expected turbo=VALUE"),
        ("device:turbo=true:turbo=true", "option 'turbo' is given twice"),
        ("device:turbo=none", "turbo is 'none', expected true or false"),
        ("device:isa=z80", "isa is 'z80', expected one of native"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        find_target(text)


def test_an_option_that_no_text_can_give() -> None:
    with pytest.raises(UsageError, match="option 'folder' is a Path, which no text can give"):
        find_target("device:folder=x")


def test_a_value_that_no_text_can_give() -> None:
    with pytest.raises(UsageError, match="option 'kernels' is 'a:b', which no text can give"):
        target_text(Device(Isa.VNNI, kernels="a:b"))


def test_words_for_completion_follow_the_fields() -> None:
    words = option_words("device")
    assert words[:2] == ("isa=sse", "isa=avx2")
    assert words[-6:] == (
        "num-cores=",
        "turbo=true",
        "turbo=false",
        "memory=",
        "kernels=",
        "folder=",
    )
