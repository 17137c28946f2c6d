"""What every pass must keep to, ours and those of other packages alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from irtools.data import SyntheticSettings, put_at_padding, synthesize
from irtools.editing import RULE
from irtools.errors import IrtoolsError, UnsupportedError
from irtools.instruments import check_outputs
from irtools.model import Model, iter_nodes, padded_outputs
from irtools.passmanager import (
    Exactness,
    Pass,
    PassContext,
    Pipeline,
    Plan,
    PlanningPass,
    options_of,
    pass_text,
)
from irtools.plugins import registry
from irtools.targets import RunnerOptions
from irtools.testing.models import TINY_MODELS, read_model

__all__ = ["CHECKS", "Check", "ContractError", "check_pass"]

TARGET = "ort-cpu:isa=vnni"
"""What passes are checked for: one instruction set, so that they decide alike everywhere."""


class ContractError(AssertionError):
    """A pass does not keep to the contract."""


@dataclass(frozen=True)
class Check:
    """One rule of the contract.

    Attributes:
        name: Kebab-case.
        run: Holds a pass to it on a model; raises AssertionError or IrtoolsError.
        applies: Whether the rule is for a pass.
        needs_model: Whether it depends on the model: others run once.
    """

    name: str
    run: Callable[[Pass, Model], None]
    applies: Callable[[Pass], bool] = lambda pass_: True
    needs_model: bool = True


def check_pass(pass_: Pass, models: Mapping[str, Model | str] | None = None) -> tuple[str, ...]:
    """Hold a pass to the whole contract on several models.

    Args:
        pass_: As it is set; passes with other options are other passes.
        models: Models, or ONNX texts, by name. None: the tiny ones of `irtools.testing`.

    Returns:
        Names of the models that the pass changed.

    Raises:
        ContractError: A rule is broken, or the pass changed none of the models, so that nothing
            was tested.
    """
    found = {n: make() for n, make in TINY_MODELS.items()} if models is None else dict(models)
    read = {n: read_model(m) if isinstance(m, str) else m for n, m in found.items()}
    for check in CHECKS:
        if not check.applies(pass_):
            continue
        for name, model in list(read.items())[: None if check.needs_model else 1]:
            try:
                check.run(pass_, model)
            except (AssertionError, IrtoolsError) as error:
                raise ContractError(
                    f"{pass_text(pass_)} on {name}: {check.name}: {error}"
                ) from error
    changed = tuple(name for name, model in read.items() if run_pass(pass_, model)[1])
    if not changed:
        raise ContractError(
            f"{pass_text(pass_)} changed none of the models {', '.join(read)}, so nothing was "
            "tested: give models={name: model} with one that it changes"
        )
    return changed


def run_pass(pass_: Pass, model: Model) -> tuple[Model, bool]:
    """Run a pass on a copy; a refusal counts as leaving the model alone."""
    copy = model.clone()
    try:
        result = pass_.run(copy.ir, _context(model))
    except UnsupportedError:
        assert copy.text() == model.text(), "a pass that refuses must not have begun"
        return copy, False
    foreign = sorted(set(result.counters) - set(pass_.counters))
    assert not foreign, f"it counts {', '.join(foreign)}, which it does not declare"
    return copy, result.modified


def modified_is_honest(pass_: Pass, model: Model) -> None:
    """`modified` is False exactly where the printed model is the same."""
    after, modified = run_pass(pass_, model)
    changed = after.text() != model.text()
    assert modified == changed, f"modified is {modified}, and the printed model says {changed}"


def callers_model_stays(pass_: Pass, model: Model) -> None:
    """Nothing is written into a tensor: the caller's model shares them."""
    before = model.fingerprint()
    # Digests are kept with the tensors, so a fresh look takes the bytes themselves.
    arrays = _weights(model)
    run_pass(pass_, model)
    assert model.fingerprint() == before, "the model of the caller is another one"
    for name, array in _weights(model).items():
        same = np.array_equal(array, arrays[name], equal_nan=array.dtype.kind == "f")
        assert same, f"it wrote into the tensor of {name!r}: make a new one"


def _weights(model: Model) -> dict[str, np.ndarray]:
    initializers = model.ir.graph.initializers.items()
    tensors = {name: value.const_value for name, value in initializers}
    return {name: t.numpy().copy() for name, t in tensors.items() if t is not None}


def result_is_sound(pass_: Pass, model: Model) -> None:
    """The result is a valid model with the interface of the one before."""
    after, _ = run_pass(pass_, model)
    after.verify(interface=model.interface)


def new_nodes_name_the_pass(pass_: Pass, model: Model) -> None:
    """Nodes that the pass makes say so in their metadata, as `irtools.editing` writes it."""
    after, _ = run_pass(pass_, model)
    known = {node.name for node in iter_nodes(model.ir)}
    new = [n for n in iter_nodes(after.ir) if n.name not in known and n.op_type != "Constant"]
    nameless = [node.name for node in new if RULE not in node.metadata_props]
    assert not nameless, f"{nameless} do not say what made them: make nodes with irtools.editing"


def second_run_changes_nothing(pass_: Pass, model: Model) -> None:
    """A pass that is declared idempotent is."""
    once, _ = run_pass(pass_, model)
    twice, modified = run_pass(pass_, once)
    assert twice.text() == once.text() and not modified, (
        "a second run changes its own result: fix that, or declare idempotent = False"
    )


def same_input_same_output(pass_: Pass, model: Model) -> None:
    """Two runs on the same model make the same model, bit by bit."""
    first, _ = run_pass(pass_, model)
    second, _ = run_pass(pass_, model)
    assert first.fingerprint() == second.fingerprint(), "two runs make two models"


def numbers_keep_the_promise(pass_: Pass, model: Model) -> None:
    """Outputs differ by no more than the declared exactness allows."""
    after, _ = run_pass(pass_, model)
    ctx = _context(model)
    feeds = synthesize(model, SyntheticSettings(samples=4, sequence=12, seed=7)).feeds
    with ctx.runner(model.ir, RunnerOptions(exact=True)) as runner:
        expected = put_at_padding(runner.run(feeds), feeds, padded_outputs(after.ir))
    with ctx.runner(after.ir, RunnerOptions(exact=True)) as runner:
        found = runner.run(feeds)
    check_outputs(expected, found, pass_.promise)
    if pass_.promise is Exactness.LOSSY:
        for name, array in expected.items():
            error = np.linalg.norm((array - found[name]).astype(np.float64))
            # Far from a promise; a pass at its defaults that loses half of the signal is broken.
            assert error <= 0.5 * np.linalg.norm(array.astype(np.float64)), (
                f"output {name!r} loses more than half of its signal"
            )


def options_survive_their_text(pass_: Pass, model: Model) -> None:
    """Printing a pass and parsing the text gives the pass, and so does TOML."""
    assert pass_.name in registry.names("irtools.passes"), (
        f"no installed package registers the name {pass_.name!r} in the entry points "
        "irtools.passes; is yours installed?"
    )
    pipeline = Pipeline(pass_)
    assert Pipeline.parse(pass_text(pass_)) == pipeline, f"{pass_text(pass_)} is another pass"
    assert Pipeline.from_toml(pipeline.to_toml()) == pipeline, "its TOML is another pass"


def everything_is_explained(pass_: Pass, model: Model) -> None:
    """Docstring, options and counters have the texts that reference and report print."""
    assert type(pass_).__doc__, "it has no docstring, which is its reference page"
    for option in options_of(type(pass_)):
        assert option.help and option.type_text, f"option {option.name} has no meaning"
    for name, phrase in pass_.counters.items():
        assert name.startswith("num-") and phrase, (
            f"counter {name!r}: expected num-... and a phrase"
        )


def plan_applies_up_to_any_decision(pass_: Pass, model: Model) -> None:
    """A plan is made without writing, survives JSON, and any prefix of it applies."""
    assert isinstance(pass_, PlanningPass)
    before = model.text()
    try:
        plan = pass_.plan(model.ir, _context(model))
    except UnsupportedError:
        assert not run_pass(pass_, model)[1], "it runs on a model that it makes no plan for"
        return
    assert model.text() == before, "planning must not write"
    assert Plan.from_json(plan.to_json()) == plan, "the plan does not survive JSON"
    for length in sorted({0, 1, len(plan) // 2, len(plan)}):
        copy = model.clone()
        result = pass_.apply(copy.ir, plan.prefix(length), _context(model))
        copy.verify(interface=model.interface)
        if length == 0:
            unchanged = not result.modified and copy.text() == before
            assert unchanged, "the empty plan changes the model"


def _context(model: Model) -> PassContext:
    data = synthesize(model, SyntheticSettings(samples=8, sequence=16))
    return PassContext.for_model(model, TARGET, calibration=data, threads=1)


CHECKS = (
    Check("modified-is-honest", modified_is_honest),
    Check("the-callers-model-stays", callers_model_stays),
    Check("the-result-is-sound", result_is_sound),
    Check("new-nodes-name-the-pass", new_nodes_name_the_pass),
    Check("a-second-run-changes-nothing", second_run_changes_nothing, lambda p: p.idempotent),
    Check("the-same-input-gives-the-same-output", same_input_same_output),
    Check("numbers-keep-the-promise", numbers_keep_the_promise),
    Check("options-survive-their-text", options_survive_their_text, needs_model=False),
    Check("everything-is-explained", everything_is_explained, needs_model=False),
    Check(
        "a-plan-applies-up-to-any-decision",
        plan_applies_up_to_any_decision,
        lambda p: isinstance(p, PlanningPass),
    ),
)
"""The contract."""
