"""Editing graphs: one editor, one layer of rules, and the readers that both share.

Nothing else makes a node or registers a weight (`tests/test_layout.py`).
"""

from __future__ import annotations

from irtools.editing.algebra import Algebra
from irtools.editing.contents import new_contents, set_contents, take_place
from irtools.editing.driver import Rewritten, Survey, rewrite, survey
from irtools.editing.editor import Editor, NodeForm
from irtools.editing.pattern import (
    Bound,
    OpPattern,
    Pattern,
    Var,
    bind,
    bind_user,
    either,
    equal,
    expect,
    expect_user,
    number,
    op,
    splat,
)
from irtools.editing.place import Place
from irtools.editing.provenance import REPLACED, RULE, SCOPES, maker_of, note_maker
from irtools.editing.readers import (
    array_of,
    attribute_values,
    can_forward,
    constant_of,
    only_user,
    other_input,
    past_identities,
    producer_of,
    require_array,
    require_constant,
    require_weight,
    scalar_of,
    weight_of,
)
from irtools.editing.rule import Rule
from irtools.editing.veto import Veto, require, told

__all__ = [
    "REPLACED",
    "RULE",
    "SCOPES",
    "Algebra",
    "Bound",
    "Editor",
    "NodeForm",
    "OpPattern",
    "Pattern",
    "Place",
    "Rewritten",
    "Rule",
    "Survey",
    "Var",
    "Veto",
    "array_of",
    "attribute_values",
    "bind",
    "bind_user",
    "can_forward",
    "constant_of",
    "either",
    "equal",
    "expect",
    "expect_user",
    "new_contents",
    "number",
    "maker_of",
    "note_maker",
    "only_user",
    "op",
    "other_input",
    "past_identities",
    "producer_of",
    "require",
    "require_array",
    "require_constant",
    "require_weight",
    "rewrite",
    "scalar_of",
    "set_contents",
    "splat",
    "survey",
    "told",
    "take_place",
    "weight_of",
]
