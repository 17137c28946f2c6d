"""Every registered pass keeps to the contract of `irtools.testing`, with each of its choices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args, get_origin

import pytest
from _pytest.mark import ParameterSet

from irtools.errors import UsageError
from irtools.passmanager import Option, Pass, Pipeline, options_of
from irtools.plugins import registry
from irtools.testing import CHECKS, TINY_MODELS, Check


def _variants() -> Iterator[Pass]:
    """Every registered pass at its defaults, and with each of its choices and switches."""
    for name in registry.names("irtools.passes"):
        yield from Pipeline.parse(name)
        kind = registry.load("irtools.passes", name)
        for option in options_of(kind):
            for value in _choices(option):
                text = f"{name}:{option.name}={value}"
                try:
                    yield from Pipeline.parse(text)
                except UsageError:
                    continue  # Not without another option.


def _choices(option: Option) -> Iterator[str]:
    if option.type is bool:
        yield "false" if option.default else "true"
    for kind in (option.type, *get_args(option.type)):
        if get_origin(kind) is Literal:
            yield from (str(c) for c in get_args(kind) if c != option.default)


def _name(value: Check | Pass) -> str:
    return value.name if isinstance(value, Check) else str(Pipeline(value))


_FOREIGN = ("nncf", "nncf-weights", "ort-dynamic", "ort-static")
"""Passes that run tools of others: what their options do is tested there."""


def _marked(check: Check, pass_: Pass) -> ParameterSet:
    as_usual = pass_ == type(pass_)()
    is_slow = pass_.name == "nncf" or (pass_.name in _FOREIGN and not as_usual)
    marks = [pytest.mark.slow] if is_slow and check.needs_model else []
    if pass_.name.startswith("nncf"):
        marks.append(pytest.mark.nncf)
    return pytest.param(check, pass_, marks=marks)


_PASSES = tuple(_variants())
_ON_MODELS = [
    _marked(check, pass_)
    for check in CHECKS
    if check.needs_model
    for pass_ in _PASSES
    if check.applies(pass_)
]
_ALONE = [
    _marked(check, pass_)
    for check in CHECKS
    if not check.needs_model
    for pass_ in _PASSES
    if check.applies(pass_)
]


@pytest.mark.parametrize("model", TINY_MODELS)
@pytest.mark.parametrize(("check", "pass_"), _ON_MODELS, ids=_name)
def test_on_models(check: Check, pass_: Pass, model: str) -> None:
    check.run(pass_, TINY_MODELS[model]())


@pytest.mark.parametrize(("check", "pass_"), _ALONE, ids=_name)
def test_alone(check: Check, pass_: Pass) -> None:
    check.run(pass_, TINY_MODELS["mlp"]())
