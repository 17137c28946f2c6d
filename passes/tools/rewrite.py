"""The pass `rewrite`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import onnx_ir as ir

from irtools.errors import MissingExtraError, OptionError, UsageError
from irtools.model import iter_nodes
from irtools.passes.tools.exchange import adopt, mark_new_nodes
from irtools.passes.tools.quantizer import tool_at_work
from irtools.passmanager import FOLLOWED_GRAPH, Exactness, Pass, PassContext, PassResult, option
from irtools.plugins import import_named

__all__ = ["Rewrite"]

_WANTED = "expected a rule, a rule set or a sequence of rules of onnxscript.rewriter"


@dataclass(frozen=True)
class Rewrite(Pass):
    """Apply rewrite rules written with onnxscript.

    Any `RewriteRule`, `RewriteRuleSet`, sequence of rules, or function without arguments that
    returns one of these. Modules of the current folder are found as well. The rules decide by
    themselves where they are safe: how close the outputs stay is what `keeps` says of them, and
    what is checked after the pass. Needs the extra `rewrite`.
    """

    name: ClassVar[str] = "rewrite"
    requires: ClassVar[tuple[str, ...]] = FOLLOWED_GRAPH
    counters: ClassVar[dict[str, str]] = {"num-rewritten": "places where a rule was applied"}

    rules: str = option(
        "",
        "where the rules are, as package.module:RULES; none named: those that onnxscript.rewriter "
        "applies by itself",
    )
    keeps: Literal["exact", "reassociated", "lossy"] = option(
        "reassociated",
        "how close the outputs stay; exact: bit-equal; reassociated: to 1e-5; lossy: another "
        "function on purpose",
    )

    def __post_init__(self) -> None:
        if self.rules and not all(self.rules.partition(":")[::2]):
            raise OptionError(f"rules is {self.rules!r}, expected package.module:RULES")
        if not self.rules and self.keeps != "reassociated":
            raise OptionError(f"keeps={self.keeps} says something of your rules: name them, rules=")

    @property
    def promise(self) -> Exactness:
        return Exactness(self.keeps)

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        rules = _rule_set(self.rules)
        # Rules that match nothing may still fold constants and drop what no node reads.
        copy = model.clone()
        with tool_at_work(self.name):
            count = rules.apply_to_model(copy)
        if not count:
            return PassResult(False, {"num-rewritten": 0}, ("no rule matches",))
        known = {node.name for node in iter_nodes(model)}
        _drop_unused(copy)
        adopt(model, copy)
        mark_new_nodes(model, known, self.name)
        return PassResult(True, {"num-rewritten": count})


def _rule_set(spec: str) -> Any:
    """Return the rules of a place as one set.

    Raises:
        MissingExtraError: onnxscript is not installed.
        UsageError: There is nothing of that name, or it holds no rules.
    """
    try:
        from onnxscript import rewriter
    except ImportError as error:
        raise MissingExtraError("the pass rewrite", "rewrite") from error
    if not spec:
        return rewriter.RewriteRuleSet(_default_rules(rewriter))
    found = import_named(spec)
    if isinstance(found, type) or (not isinstance(found, _kinds(rewriter)) and callable(found)):
        found = found()
    if isinstance(found, rewriter.RewriteRuleSet):
        return found
    rules = [found] if isinstance(found, rewriter.RewriteRule) else found
    if not isinstance(rules, Sequence) or not rules:
        raise UsageError(f"rules: {spec} is {_told(found)}, {_WANTED}")
    if strange := [rule for rule in rules if not isinstance(rule, rewriter.RewriteRule)]:
        raise UsageError(f"rules: {spec} holds {_told(strange[0])}, {_WANTED}")
    return rewriter.RewriteRuleSet(list(rules))


def _told(found: object) -> str:
    return "empty" if found in ([], ()) else type(found).__name__


def _kinds(rewriter: Any) -> tuple[type, ...]:
    return rewriter.RewriteRule, rewriter.RewriteRuleSet, Sequence


def _default_rules(rewriter: Any) -> Sequence[Any]:
    rules: Sequence[Any] = rewriter._DEFAULT_REWRITE_RULES
    return rules


def _drop_unused(model: ir.Model) -> None:
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(model)
    unused: Any = common.RemoveUnusedFunctionsPass
    unused()(model)
