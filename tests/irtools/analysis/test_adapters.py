"""Names of inputs for adapters say which layers share one."""

from __future__ import annotations

import pytest

from irtools.analysis.adapters import down_name, modules_of, up_name


@pytest.mark.parametrize(
    "modules",
    [
        ("m.0.q",),
        ("m.0.q", "m.0.k", "m.0.v"),
        ("q", "k"),
        # Below another layer than the first one, and names that are beginnings of others.
        ("m.q", "m.q.k", "n.v"),
    ],
)
def test_layers_follow_from_the_name_of_what_they_share(modules: tuple[str, ...]) -> None:
    others = ("m.0.o", "m", "m.1.k", "r.q")
    names = {up_name(name) for name in (*modules, *others)}
    assert modules_of(down_name(modules), names) == modules


def test_another_input_is_of_no_layer() -> None:
    assert modules_of("m.q.lora_A", {"m.k.lora_B"}) == ()
    assert modules_of("m.q.lora_B", {"m.q.lora_B"}) == ()
