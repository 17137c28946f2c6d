"""A release in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import irtools
from irtools.builds import load as module
from irtools.builds.records import Manifest, read_record
from irtools.errors import (
    DataError,
    FileError,
    TargetUnavailableError,
    UnknownNameError,
    UsageError,
)
from irtools.targets import Isa


def test_texts_get_classes_and_embeddings(
    text_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Isa, "detect", classmethod(lambda cls: Isa.VNNI))
    texts = ["oil oil", "corn", "ship corn ship", *["oil"] * 20]
    with irtools.load(text_release) as model:
        # The newest instruction set that this CPU has.
        assert model.name == "bag/clean/avx2" and model.classes[1] == "grain"
        assert model.predict(texts) == ["crude", "grain", "trade", *["crude"] * 20]
        vectors = model.encode(texts[:3], normalize=False)
        np.testing.assert_allclose(vectors[2], [1 / 3, 13 / 3, 6], rtol=1e-6)
        unit = model.encode(texts[:3])
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
        ids = np.array([[2, 3]])
        found = model.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
        np.testing.assert_allclose(found["logits"], [[10, 10, 0]])
        for wrong in ("oil", []):
            with pytest.raises(DataError, match="a list of texts"):
                model.predict(wrong)
        for row in (1, None, ("a", "b", "c"), ("a", 1), ()):
            with pytest.raises(DataError, match=r"text 1 is .*, expected a text, or a pair"):
                model.predict(["oil", row])


def test_hidden_states_are_averaged_over_the_text_and_not_over_its_padding() -> None:
    hidden = np.array([[[2.0, 4.0], [4.0, 0.0], [9.0, 9.0]]], np.float32)
    mask = {"attention_mask": np.array([[1, 1, 0]])}
    found = module._pooled(mask, {"last_hidden_state": hidden})
    np.testing.assert_allclose(found, [[3, 2]])
    np.testing.assert_allclose(module._pooled({}, {"last_hidden_state": hidden}), [[5, 13 / 3]])
    rows = np.array([[1.0, 2.0]], np.float32)
    assert module._pooled(mask, {"last_hidden_state": hidden, "pooler": rows}) is rows
    assert module._pooled(mask, {"y": rows}) is rows
    for scores in ("logits", "scores", "probabilities"):
        with pytest.raises(DataError, match=rf"gives {scores} \[1, 2\]: not embeddings"):
            module._pooled(mask, {scores: rows})
    with pytest.raises(DataError, match="not embeddings"):
        module._pooled({}, {"y": np.ones((1, 2, 3, 4), np.float32)})


@pytest.mark.parametrize(
    ("here", "chosen"), [(Isa.AMX, "amx"), (Isa.AVX512, "avx2"), (Isa.SSE, "sse")]
)
def test_the_build_is_that_for_this_machine(
    text_release: Path, monkeypatch: pytest.MonkeyPatch, here: Isa, chosen: str
) -> None:
    monkeypatch.setattr(Isa, "detect", classmethod(lambda cls: here))
    with irtools.load(text_release, "bag/clean") as model:
        assert model.name == f"bag/clean/{chosen}"


def test_what_cannot_be_loaded_is_told(
    text_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileError, match="is not a release"):
        irtools.load(tmp_path)
    with pytest.raises(UnknownNameError, match="no build 'bad/clean'; did you mean"):
        irtools.load(text_release, "bad/clean")
    monkeypatch.setattr(Isa, "detect", classmethod(lambda cls: Isa.ARM))
    with pytest.raises(TargetUnavailableError, match="bag/clean/sse is for sse"):
        irtools.load(text_release)
    manifest = text_release / "irtools.json"
    other = tmp_path / "irtools.json"
    text = manifest.read_text(encoding="utf-8")
    other.write_text(text.replace("bag/clean/sse", "sack/clean/sse"), encoding="utf-8")
    with pytest.raises(DataError, match=r"irtools.json has other bytes than were written"):
        irtools.load(tmp_path)
    other.write_text(read_record(Manifest, other).sealed()[1], encoding="utf-8")
    with pytest.raises(UsageError, match="several models: say which of sack, bag"):
        irtools.load(tmp_path)
