"""The pass `rewrite`: rules written with onnxscript."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from irtools.cli.main import run
from irtools.errors import MissingExtraError, UsageError
from irtools.model import Model
from irtools.passmanager import Exactness, PassContext, PassResult, Pipeline
from irtools.testing import TINY_MODELS, read_model

COMMON = "onnxscript.rewriter.rules.common"
RULES = """
from onnxscript.rewriter import pattern

def _before(op, x):
    return op.Relu(x)

def _after(op, x):
    return op.Max(x, op.Constant(value_float=0.0))

RULE = pattern.RewriteRule(_before, _after, name="relu-as-max")
SEVERAL = [RULE]
NOTHING = []
STRANGE = ["a rule"]

def make():
    return pattern.RewriteRuleSet(SEVERAL)
"""

pytestmark = pytest.mark.torch


def applied(text: str, model: Model) -> tuple[Model, PassResult]:
    (found,) = Pipeline.parse(text)
    copy = model.clone()
    ctx = PassContext.for_model(model, "ort-cpu:isa=vnni", threads=1)
    return copy, found.run(copy.ir, ctx)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with rules in it."""
    (tmp_path / "my_rules_of_test.py").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rules_of_test", raising=False)
    return tmp_path


def test_one_rule_of_onnxscript() -> None:
    model = TINY_MODELS["convnet"]()
    after, result = applied(f"rewrite:rules={COMMON}:fuse_batchnorm_into_conv_rule", model)
    assert result.counters == {"num-rewritten": 1}
    assert [n.op_type for n in after.ir.graph][:2] == ["Conv", "Relu"]
    made = after.ir.graph[0]
    assert made.metadata_props["pkg.irtools.rule"] == "rewrite"
    assert made.metadata_props["pkg.onnxscript.rewriter.rule_name"] == "FuseBatchNormIntoConv"
    after.verify(interface=model.interface)


def test_the_rules_of_the_library_by_default() -> None:
    model = TINY_MODELS["convnet"]()
    after, result = applied("rewrite", model)
    assert result.modified and "BatchNormalization" not in {n.op_type for n in after.ir.graph}


@pytest.mark.parametrize("name", ["RULE", "SEVERAL", "make"])
def test_rules_of_the_current_folder(folder: Path, name: str) -> None:
    model = TINY_MODELS["mlp"]()
    after, result = applied(f"rewrite:rules=my_rules_of_test:{name}", model)
    assert result.counters == {"num-rewritten": 1}
    assert "Max" in {n.op_type for n in after.ir.graph}
    assert "Relu" in {n.op_type for n in model.ir.graph}


def test_nothing_changes_where_no_rule_matches() -> None:
    model = TINY_MODELS["mlp"]()
    model.ir.graph.initializers["b1"].const_value.numpy()
    after, result = applied(f"rewrite:rules={COMMON}:fuse_batchnorm_into_conv_rule", model)
    assert not result.modified and after.text() == model.text()
    assert result.notes == ("no rule matches",)


def test_the_promise_is_that_of_the_rules() -> None:
    for keeps in ("exact", "lossy"):
        (found,) = Pipeline.parse(f"rewrite:rules=a.b:C:keeps={keeps}")
        assert found.promise is Exactness(keeps)
        assert Pipeline.parse(str(Pipeline(found))) == Pipeline(found)
    (found,) = Pipeline.parse("rewrite")
    assert found.promise is Exactness.REASSOCIATED


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("my_rules_of_test", "rules is 'my_rules_of_test', expected package.module:RULES"),
        ("my_rules_of_test:ABSENT", "module 'my_rules_of_test' has no 'ABSENT'"),
        ("absent_module:RULES", "no module named 'absent_module'"),
        ("my_rules_of_test:NOTHING", "is empty, expected a rule, a rule set or a sequence"),
        ("my_rules_of_test:STRANGE", "holds str, expected a rule"),
        ("os:sep", "os:sep holds str, expected a rule"),
        ("os:curdir.x", "has no 'curdir.x'"),
        ("sys:maxsize", "is int, expected a rule"),
    ],
)
def test_what_is_not_rules_is_refused(folder: Path, rules: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        applied(f"rewrite:rules={rules}", TINY_MODELS["mlp"]())
    assert said in str(error.value)


def test_other_items_without_a_value_are_refused() -> None:
    with pytest.raises(UsageError, match="'b' is not an option, expected key=value"):
        Pipeline.parse("rewrite:keeps=exact:b")
    with pytest.raises(UsageError, match="keeps=exact says something of your rules"):
        Pipeline.parse("rewrite:keeps=exact")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'irtools-compiler\[rewrite\]'"):
        applied("rewrite", TINY_MODELS["mlp"]())


def test_rules_that_change_the_outputs_are_found_out(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The verification holds rules to what is said of them."""
    (folder / "wrong_rules_of_test.py").write_text(
        RULES.replace("op.Max(x, op.Constant(value_float=0.0))", "op.Neg(x)")
    )
    TINY_MODELS["mlp"]().save("model.onnx")
    passes = "rewrite:rules=wrong_rules_of_test:RULE"
    assert run(["optimize", "model.onnx", "--passes", passes, "-o", "out.onnx", "--no-bench"]) == 5
    assert "rewrite" in capfd.readouterr().err and not Path("out.onnx").exists()


def test_the_example_of_the_docs(folder: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "other-quantizers.md").read_text()
    code = page.split("```python\n# my_rules.py\n")[1].split("```")[0]
    (folder / "rules_of_the_docs.py").write_text(code)
    model = read_model(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[n] x) => (float[n] y) {
          a = Neg (x)
          b = Neg (a)
          y = Exp (b)
        }
        """
    )
    after, result = applied("rewrite:rules=rules_of_the_docs:RULES", model)
    assert result.modified and [n.op_type for n in after.ir.graph] == ["Identity", "Exp"]


def test_as_a_user_types_it(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    TINY_MODELS["mlp"]().save("model.onnx")
    passes = "rewrite:rules=my_rules_of_test:RULE:keeps=exact"
    code = run(["optimize", "model.onnx", "--passes", passes, "-o", "out.onnx", "--no-bench"])
    assert code == 0, capfd.readouterr().err
    assert "Max" in {n.op_type for n in Model.load("out.onnx").ir.graph}
    made, given = (Model.load(name).interface for name in ("out.onnx", "model.onnx"))
    np.testing.assert_equal(made.inputs, given.inputs)
    np.testing.assert_equal(made.outputs, given.outputs)


def test_rules_without_a_name_are_refused_before_anything_is_run() -> None:
    for text in ("nope", "a.b."):
        with pytest.raises(UsageError, match=r"expected package\.module:RULES"):
            Pipeline.parse(f"rewrite:rules={text}")
