"""What outputs hold at padding is what a model notes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.data import put_at_padding
from irtools.model import PaddedOutput, note_padded_outputs, padded_outputs


def test_noted_numbers_stand_at_padding_alone() -> None:
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    outputs = {name: np.ones((2, 3, 2), np.float32) for name in ("noted", "other")}
    outputs["scores"] = np.ones((2, 3), np.float32)
    padded = {
        "noted": PaddedOutput("mask", 0.0, 0.0),
        "scores": PaddedOutput("mask", 0.0, -1e4),
        "absent": PaddedOutput("mask", 0.0, 0.0),
    }
    found = put_at_padding(outputs, {"mask": mask}, padded)
    assert list(found) == list(outputs)
    np.testing.assert_array_equal(found["noted"], mask[..., None] * outputs["noted"])
    np.testing.assert_array_equal(found["scores"], np.where(mask, 1.0, -1e4))
    assert found["scores"].dtype == np.float32
    assert found["other"] is outputs["other"]


def test_what_does_not_fit_the_mask_stays() -> None:
    outputs = {"y": np.ones((2, 4, 2)), "count": np.array(3)}
    padded = {name: PaddedOutput("mask", 0.0, 0.0) for name in outputs}
    found = put_at_padding(outputs, {"mask": np.zeros((2, 3))}, padded)
    assert all(found[name] is array for name, array in outputs.items())


def test_notes_are_kept_in_the_model() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[n] x) => (float[n] y) { y = Neg(x) }'
    )
    assert padded_outputs(model) == {}
    first, second = PaddedOutput("mask", 0.0, 0.0), PaddedOutput("mask", 0.0, -1e4)
    note_padded_outputs(model, {"y": first})
    note_padded_outputs(model, {"z": second})
    assert padded_outputs(model) == {"y": first, "z": second}
    model.metadata_props["irtools.padding"] = "of another tool"
    assert padded_outputs(model) == {}
