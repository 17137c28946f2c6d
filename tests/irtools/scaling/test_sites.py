"""Where scales can be moved, where not, and that moving them changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.scales import Site, find_sites
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor
from irtools.model import verify
from irtools.scaling.fold import fold

from .graphs import CASES, CONVS, FUSED_GROUPED, GATED, LAYERS, Case, kept_db

EXACT_DB = 120.0


def sites_of(model: ir.Model) -> tuple[Site, ...]:
    return find_sites(model, SymbolicShapes.of(model)).found


def folded(model: ir.Model, sites: tuple[Site, ...], seed: int = 0) -> ir.Model:
    """Fold drawn scales into all sites, in place."""
    rng = np.random.default_rng(seed)
    editor = Editor(model, "test")
    for site in sites:
        fold(editor, site, np.exp(rng.normal(size=site.units) * 2))
    verify(model)
    return model


@pytest.mark.parametrize("name", CASES)
def test_sites_are_found(name: str) -> None:
    case = CASES[name]
    model = case.model()
    found = find_sites(model, SymbolicShapes.of(model))
    assert {site.name: f"{site.way} {site.kind}" for site in found} == case.sites
    assert found.refused == case.refused
    assert {site.name: site.why for site in found if site.way != "folded"} == case.why


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.sites])
def test_drawn_scales_change_nothing(name: str) -> None:
    model = CASES[name].model()
    after = model.clone()
    assert kept_db(model, folded(after, sites_of(after))) > EXACT_DB


@pytest.mark.parametrize("case", [FUSED_GROUPED, GATED, CONVS], ids=["heads", "gate", "convs"])
def test_a_scale_that_one_reader_lacks_is_seen(case: Case) -> None:
    """The check above would fail on a wrong rule: one unit is moved in one constant."""
    model = case.model()
    after = model.clone()
    sites = sites_of(after)
    first = next(site for site in sites if site.way == "folded")
    wrong = replace(first.members[0], layout=np.roll(first.members[0].layout, 1))
    if wrong.layout.size == 1:
        pytest.fail("the case has nothing to move")
    broken = replace(first, members=(wrong, *first.members[1:]))
    assert kept_db(model, folded(after, (broken,))) < 40


def test_layers_with_one_weight_keep_one() -> None:
    model = LAYERS.model()
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    folded(model, sites_of(model))
    after = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    assert after <= size + 2 * 80 * 4  # The gain and offset of the third norm are its own now.


def test_weights_of_the_caller_stay() -> None:
    model = GATED.model()
    before = {n: v.const_value.numpy().copy() for n, v in model.graph.initializers.items()}
    copy = model.clone()
    folded(copy, sites_of(copy))
    for name, value in model.graph.initializers.items():
        assert np.array_equal(value.const_value.numpy(), before[name])
