"""Every hostile or unusual file, through `Model.load` and `Model.save`."""

from __future__ import annotations

import random
import time
from pathlib import Path

import onnx
import pytest

from irtools.errors import FileError, IrtoolsError, LimitError, ModelError
from irtools.model import Model

from . import hostile

LEGAL = [case for case in hostile.CASES if case.expectation == "accept"]
BAD = [case for case in hostile.CASES if case.expectation == "refuse"]
SECONDS = 2.0


def ids(case: object) -> str:
    return case.name  # type: ignore[attr-defined]


def test_the_set_is_large_and_named_once() -> None:
    names = [case.name for case in hostile.CASES]
    assert len(names) == len(set(names))
    assert len(BAD) >= 100 and len(LEGAL) >= 50


@pytest.mark.parametrize("case", BAD, ids=ids)
def test_bad_file_is_refused(case: object, tmp_path: Path) -> None:
    path = case.build(tmp_path)
    before = time.process_time()
    with pytest.raises((ModelError, FileError, LimitError)) as caught:
        Model.load(path)
    assert time.process_time() - before < SECONDS
    message = str(caught.value)
    assert case.needle in message
    assert message.isprintable() and len(message) < 2000
    assert hostile.CANARY.decode() not in message
    assert not (tmp_path / "PWNED").exists() and not Path("PWNED").exists()


@pytest.mark.parametrize("external", [None, True], ids=["inline", "external"])
@pytest.mark.parametrize("case", LEGAL, ids=ids)
def test_legal_file_survives(case: object, external: bool | None, tmp_path: Path) -> None:
    path = case.build(tmp_path / "in")
    model = Model.load(path)
    model.verify(interface=model.interface)
    elsewhere = tmp_path / "out"
    elsewhere.mkdir()
    model.save(elsewhere / "saved.onnx", external_data=external)
    again = Model.load(elsewhere / "saved.onnx")
    assert again.text(types=True) == model.text(types=True)
    assert again.fingerprint() == model.fingerprint()
    for file in elsewhere.iterdir():
        assert hostile.CANARY not in file.read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bits_never_crash(seed: int, tmp_path: Path) -> None:
    """A damaged file is refused or is another sound model; nothing else may happen."""
    rng = random.Random(seed)
    data = bytearray(hostile.model().SerializeToString())
    path = tmp_path / "model.onnx"
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 4, 16))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            Model.load(path).save(tmp_path / "saved.onnx")
        except IrtoolsError as error:
            assert str(error).isprintable()


@pytest.mark.parametrize("seed", range(2))
def test_cut_files_never_crash(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    data = hostile.model().SerializeToString()
    path = tmp_path / "model.onnx"
    for _ in range(100):
        path.write_bytes(data[: rng.randrange(len(data))])
        with pytest.raises(IrtoolsError):
            Model.load(path)


def test_external_data_of_a_message_needs_a_folder() -> None:
    tensor = hostile.make_external(location="w.bin")
    proto = hostile.model(hostile.graph(weights=[tensor, hostile.weight("b", (3,))]))
    with pytest.raises(ModelError, match="not read from a file"):
        Model.from_proto(proto)


def test_message_is_not_changed_by_reading_it() -> None:
    proto = hostile.model()
    before = proto.SerializeToString()
    Model.from_proto(proto)
    assert proto.SerializeToString() == before
    assert isinstance(proto, onnx.ModelProto)
