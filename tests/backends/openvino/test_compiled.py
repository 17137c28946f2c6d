"""Models that OpenVINO compiled before: equal numbers, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.backends.openvino import compiled
from irtools.driver.artifact import compile_to
from irtools.driver.destination import Destination
from irtools.errors import CheckError, DataError, UnsupportedError
from irtools.model import Model
from irtools.targets import RunnerOptions, find_target

pytestmark = pytest.mark.openvino

_BODY = """
<ir_version: 10, opset_import: ["" : 20]>
m (float[b, 8] x, int64[b] i) => (float[b, 8] y, int64[b] j, float[b, 8] z)
<float[8, 8] w = {%s}> {
  h = MatMul(x, w)
  y = Relu(h)
  j = Abs(i)
  z = Identity(y)
}"""


def dense() -> Model:
    numbers = np.random.default_rng(0).normal(size=64).round(3)
    return Model(ir.from_onnx_text(_BODY % ", ".join(map(str, numbers))))


def feeds(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {"x": rng.normal(size=(rows, 8)).astype(np.float32), "i": rng.integers(-9, 9, rows)}


def written(model: Model, folder: Path, form: str) -> Path:
    return find_target("openvino-cpu").compile(model, folder, "m", format=form).files[0]


def test_the_same_bits_for_every_size(tmp_path: Path) -> None:
    target = find_target("openvino-cpu")
    paths = [written(dense(), tmp_path, form) for form in ("xml", "blob")]
    assert [path.name for path in paths] == ["m.xml", "m.blob"]
    for options in (RunnerOptions(), RunnerOptions(threads=1, exact=True)):
        with target.runner(paths[0], options) as plain, target.runner(paths[1], options) as made:
            assert tuple(made.input_names) == ("x", "i")
            assert set(made.output_names) == set(plain.output_names) == {"y", "j", "z"}
            for rows in (1, 5):
                wanted, found = plain.run(feeds(rows)), made.run(feeds(rows))
                for name, array in wanted.items():
                    np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_kernels_and_times_are_those_of_the_model(tmp_path: Path) -> None:
    target = find_target("openvino-cpu")
    path = written(dense(), tmp_path, "blob")
    assert any(kind.startswith("FullyConnected") for kind in target.kernels(path).counts)
    assert target.profile(path, feeds(2), 2).microseconds.sum() > 0


def test_a_run_that_failed_leaves_nothing_behind(tmp_path: Path) -> None:
    with find_target("openvino-cpu").runner(written(dense(), tmp_path, "blob")) as runner:
        with pytest.raises(DataError):
            runner.run({**feeds(2), "x": np.zeros((2, 9), np.float32)})
        assert runner.run(feeds(3))["y"].shape == (3, 8)


def test_a_decoder_with_its_cache_is_refused(grouped_decoder: Model, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"decoder with its cache .* write \.xml"):
        written(grouped_decoder, tmp_path, "blob")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"not a model at all", None])
def test_a_damaged_file_is_one_line(damage: bytes | None, tmp_path: Path) -> None:
    path = written(dense(), tmp_path, "blob")
    path.write_bytes(path.read_bytes()[:40] if damage is None else damage)
    with pytest.raises(UnsupportedError, match=r"cannot load m\.blob; .* make it again") as caught:
        find_target("openvino-cpu").runner(path)
    assert "\n" not in str(caught.value)

    path.write_bytes(b"")
    with pytest.raises(UnsupportedError, match=r"m\.blob is empty"):
        find_target("openvino-cpu").runner(path)


def test_other_numbers_are_found_before_anybody_sees_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Destination.artifact(str(tmp_path / "m.blob"), "", force=False)
    target = find_target("openvino-cpu")
    original = compiled.write_compiled

    def other(imported: object, path: Path, device: str) -> None:
        from irtools.backends.openvino.library import import_openvino
        from irtools.backends.openvino.source import import_model

        model = dense()
        weight = model.ir.graph.initializers["w"]
        weight.const_value = ir.tensor(1.01 * weight.const_value.numpy(), name="w")  # type: ignore[union-attr]
        original(import_model(import_openvino().Core(), model), path, device)

    monkeypatch.setattr(compiled, "write_compiled", other)
    with pytest.raises(CheckError, match=r"m\.blob computes other numbers .* write \.xml"):
        compile_to(dense(), target, whole, "", format="blob")
    assert not (tmp_path / "m.blob").exists()

    monkeypatch.undo()
    artifact, _ = compile_to(dense(), target, whole, "", format="blob")
    assert artifact.files == (tmp_path / "m.blob",)
