"""`irc operators`: what is known of which operator."""

from __future__ import annotations

import json
from collections.abc import Callable

from irtools.operators import all_ops


def test_the_coverage_has_a_line_for_every_operator_and_a_column_for_every_rule(
    irc: Callable,
) -> None:
    found = irc("operators", "--coverage")
    head, *lines = found.out.splitlines()
    names = {line.split()[0] for line in lines if line}
    assert found.code == 0 and set(all_ops()) <= names
    columns = [
        "operator",
        "kind",
        "type",
        "shape",
        "value",
        "bounds",
        "cost",
        "channels",
        "rows",
        "scales",
        "no-op",
    ]
    assert head.split() == [*columns, "fold", "half", "opset"]
    starts = {line.index(line.split()[1]) for line in lines if line.split()[:1] == ["Relu"]}
    assert starts == {head.index("kind")}
    (conv,) = [line for line in lines if line.startswith("Conv ")]
    assert conv.split()[1:8] == ["convolution", "schema", "kind", "-", "-", "kind", "own"]


def test_json_has_the_same(irc: Callable) -> None:
    rows = json.loads(irc("operators", "Conv", "com.microsoft::FastGelu", "--json").out)
    conv, gelu = rows["operators"]
    assert (conv["weight"], conv["rules"]["channels"], conv["rules"]["no-op"]) == (1, "own", "")
    assert (gelu["domain"], gelu["kind"]) == ("com.microsoft", "elementwise")
    assert len(json.loads(irc("operators", "--json").out)["operators"]) == len(all_ops())


def test_one_operator_is_explained_and_a_misspelt_one_suggested(irc: Callable) -> None:
    shown = irc("operators", "Conv").out
    assert "since opset 22: 2 to 3 inputs, 1 output" in shown and "auto_pad, dilations" in shown
    assert "weight: input 1" in shown and "channels are followed through it" in shown
    wrong = irc("operators", "Covn")
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err == "irc: there is no operator 'Covn'; did you mean 'Conv'?\n"
    unlike = irc("operators", "9_9_9_9")
    assert unlike.err == "irc: there is no operator '9_9_9_9'; irc operators lists them\n"
    assert "elementwise: Add" in irc("operators").out
