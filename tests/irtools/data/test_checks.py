"""Data that does not fit, refused before a run: names, shapes, types, values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset, check_calibration, fit_dataset
from irtools.errors import DataError

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, sequence] input_ids, float[batch, sequence, 2] x, int32[batch, 3] codes)
    => (float[batch, sequence, 4] y, float[batch, sequence, 2] z, float[batch, 3] c)
    <float[10, 4] table> {
  wide = Unsqueeze (input_ids, axes)
  flat = Squeeze (wide, axes)
  y = Gather (table, flat)
  z = Relu (x)
  c = Cast <to = 1> (codes)
}
"""


@pytest.fixture
def model() -> ir.Model:
    return ir.from_onnx_text(MODEL)


def feeds(**changed: np.ndarray | None) -> Dataset:
    arrays = {
        "input_ids": np.arange(8).reshape(2, 4),
        "x": np.ones((2, 4, 2), np.float32),
        "codes": np.zeros((2, 3), np.int32),
        **changed,
    }
    return Dataset({k: v for k, v in arrays.items() if v is not None}, source="calib.npz")


def test_what_fits_is_unchanged(model: ir.Model) -> None:
    data = feeds()
    fitted = fit_dataset(data, model)
    assert fitted.notes == ()
    assert all(fitted.feeds[name] is array for name, array in data.feeds.items())


def test_safe_casts_are_made_and_said(model: ir.Model) -> None:
    data = feeds(x=np.ones((2, 4, 2)), input_ids=np.zeros((2, 4), np.int32))
    fitted = fit_dataset(data, model)
    assert fitted.feeds["x"].dtype == np.float32
    assert fitted.feeds["input_ids"].dtype == np.int64
    assert fitted.notes == (
        "calib.npz: 'input_ids' cast from int32 to int64",
        "calib.npz: 'x' cast from float64 to float32",
    )


def test_unused_arrays_are_left_out_and_said(model: ir.Model) -> None:
    fitted = fit_dataset(feeds(token_type_ids=np.zeros((2, 4), int)), model)
    assert set(fitted.feeds) == {"input_ids", "x", "codes"}
    assert fitted.notes == ("calib.npz: not inputs of this model, left out: token_type_ids",)


BAD = {
    "missing input": ({"x": None}, r"no array for input x float32\[batch,sequence,2\]; it holds"),
    "rank": ({"x": np.ones((2, 4), np.float32)}, r"'x' has shape \[2, 4\], the model takes x"),
    "fixed size": (
        {"codes": np.zeros((2, 5), np.int32)},
        r"shape \[2, 5\].*codes int32\[batch,3\]",
    ),
    "unequal sizes": (
        {"x": np.ones((2, 5, 2), np.float32)},
        "'sequence' is 4 in input 'input_ids' but 5 in 'x'",
    ),
    "type": ({"input_ids": np.zeros((2, 4), np.float32)}, "is float32, the model takes int64"),
    "text": ({"x": np.full((2, 4, 2), "a")}, "is <U1, the model takes float32"),
    "too large for int32": ({"codes": np.full((2, 3), 1 << 40)}, "int32 cannot hold"),
    "NaN": (
        {"x": np.where(np.arange(16).reshape(2, 4, 2) == 9, np.nan, 1).astype(np.float32)},
        "'x' holds 1 NaN or infinite value, the first in sample 1",
    ),
    "overflow in a cast": ({"x": np.full((2, 4, 2), 1e300)}, "16 NaN or infinite"),
    "ids outside the table": (
        {"input_ids": np.full((2, 4), 10)},
        "ids from 10 to 10, but the table it indexes has 10 rows",
    ),
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("case", BAD)
def test_bad_data_names_the_input_and_what_was_expected(model: ir.Model, case: str) -> None:
    changed, message = BAD[case]
    with pytest.raises(DataError, match=message):
        fit_dataset(feeds(**changed), model)


def test_no_samples(model: ir.Model) -> None:
    with pytest.raises(DataError, match=r"calib\.npz holds no samples"):
        fit_dataset(feeds().take(0), model)


def test_samples_must_fill_a_fixed_batch() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "g (float[2,3] x) => (float[2,3] y) { y = Relu (x) }"
    )
    fit_dataset(Dataset({"x": np.ones((4, 3), np.float32)}), model)
    with pytest.raises(DataError, match="holds 3 samples, and the model takes exactly 2 at a time"):
        fit_dataset(Dataset({"x": np.ones((3, 3), np.float32)}), model)


def test_overridable_weights_need_no_data() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "g (float[n,1] x, float[1] w = {2.0}) => (float[n,1] y) { y = Mul (x, w) }"
    )
    assert set(fit_dataset(Dataset({"x": np.ones((2, 1), np.float32)}), model).feeds) == {"x"}


def test_calibration_refuses_constant_floats_and_repeated_samples() -> None:
    check_calibration(Dataset({"ids": np.array([[1], [2]]), "mask": np.ones((2, 1), int)}))
    check_calibration(Dataset({"x": np.array([[1.0, 2.0]]), "mask": np.ones((1, 2))}))
    with pytest.raises(DataError, match="input 'x' is 0 everywhere, and no other input varies"):
        check_calibration(Dataset({"x": np.zeros((4, 3)), "mask": np.eye(4, 3)}))
    # Paddle's detectors: all images had the size of the model.
    factor = np.ones((4, 2))
    check_calibration(Dataset({"image": np.arange(12.0).reshape(4, 3), "scale_factor": factor}))
    with pytest.raises(DataError, match="all 3 samples are the same"):
        check_calibration(Dataset({"ids": np.full((3, 4), 7)}))
