"""Shape and type rules of classical machine learning, against what ONNX Runtime returns."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.model import Model
from irtools.operators import find_op

_HEAD = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]> '
_STUMP = (
    "nodes_treeids = [0,0,0], nodes_nodeids = [0,1,2], nodes_featureids = [0,0,0], "
    'nodes_values = [0.1,0.0,0.0], nodes_modes = ["BRANCH_LEQ","LEAF","LEAF"], '
    "nodes_truenodeids = [1,0,0], nodes_falsenodeids = [2,0,0]"
)

CASES = {
    "Scaler": "<offset = [0.1,0.2,0.3], scale = [1.0,2.0,3.0]> (x)",
    "Normalizer": '<norm = "L2"> (x)',
    "Imputer": "<imputed_value_floats = [1.0]> (x)",
    "Binarizer": "<threshold = 0.5> (x)",
    "LinearRegressor": "<targets = 2, coefficients = [1.0,2.0,3.0,4.0,5.0,6.0]> (x)",
    "SVMRegressor": (
        '<coefficients = [1.0,2.0], kernel_params = [0.5,0.0,3.0], kernel_type = "LINEAR", '
        "n_supports = 2, rho = [0.5], "
        "support_vectors = [1.0,2.0,3.0,4.0,5.0,6.0]> (x)"
    ),
    "TreeEnsembleRegressor": (
        f"<{_STUMP}, n_targets = 4, target_treeids = [0,0], target_nodeids = [1,2], "
        "target_ids = [0,3], target_weights = [1.0,2.0]> (x)"
    ),
    "FeatureVectorizer": "<inputdimensions = [3,3]> (x, x)",
    "OneHotEncoder": "<cats_int64s = [0,1,2,3], zeros = 1> (x)",
    "ArrayFeatureExtractor": "(x, places)",
    "LabelEncoder": "<keys_floats = [1.0], values_floats = [2.0]> (x)",
}


def _shapes(body: str) -> tuple[Model, onnx.ModelProto]:
    proto = onnx.parser.parse_model(
        f"{_HEAD} g (float[b,3] x) => (float[?] y) <int64[1,2] places = {{0, 2}}> {{ {body} }}"
    )
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return Model.from_proto(proto), proto


def _run(proto: onnx.ModelProto) -> list[np.ndarray]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    return [np.asarray(array) for array in session.run(None, {"x": x})]


@pytest.mark.parametrize("name", CASES)
def test_shape_and_type_are_those_of_the_result(name: str) -> None:
    model, proto = _shapes(f"y = ai.onnx.ml.{name} {CASES[name]}")
    (output,) = model.ir.graph.outputs
    output.type, output.shape = None, None
    (expected,) = _run(proto)
    shape = SymbolicShapes.of(model.ir).shape(output)
    assert shape is not None
    assert tuple(2 if str(dim) == "b" else dim for dim in shape) == expected.shape
    dtype = element_type(output)
    if name != "LabelEncoder":  # Its attributes say which type it gives.
        assert dtype is not None and dtype.numpy() == expected.dtype
    assert find_op("ai.onnx.ml", name) is not None


def test_scores_of_a_classifier_have_a_column_for_each_label() -> None:
    body = (
        f"l, y = ai.onnx.ml.TreeEnsembleClassifier <{_STUMP}, class_treeids = [0,0], "
        "class_nodeids = [1,2], class_ids = [0,2], class_weights = [1.0,1.0], "
        "classlabels_int64s = [5,6,7]> (x)"
    )
    model, proto = _shapes(body)
    (output,) = model.ir.graph.outputs
    output.shape = None
    shape = SymbolicShapes.of(model.ir).shape(output)
    assert shape is not None and shape[1] == _run(proto)[0].shape[1] == 3
