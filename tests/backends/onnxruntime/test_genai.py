"""Folders that onnxruntime-genai opens, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.backends.onnxruntime.coded_cache import CodedCache, note_codes
from irtools.backends.onnxruntime.genai import write_config
from irtools.driver.artifact import WrittenExport, compile_to, write_export
from irtools.driver.destination import Destination
from irtools.driver.talk import open_talker
from irtools.errors import FileError
from irtools.model import Model
from irtools.passes.quantization.kv import Kv
from irtools.passmanager import PassContext
from irtools.targets import Artifact, find_target, lowered

Talks = Callable[..., Path]
Writes = Callable[[Path, Sequence[int], int], list[int]]
_PROMPT = [5, 9, 30, 11]
_NEW = 8
_LENGTH = len(_PROMPT) + _NEW


def _written(model: Model, source: Path, folder: Path, target: str) -> Artifact:
    destination = Destination(folder, is_folder=True)
    main = source / "model.onnx"
    return compile_to(model, find_target(target), destination, str(main))[0]


@pytest.mark.genai
@pytest.mark.parametrize(
    ("target", "form"),
    [
        ("ort-cpu", ""),
        ("ort-cpu:shared-cache=false", ""),
        ("ort-cpu", "int8"),
        ("ort-cpu", "int4"),
    ],
)
def test_genai_writes_what_we_write(
    tmp_path: Path, talks: Talks, by_genai: Writes, grouped_decoder: Model, target: str, form: str
) -> None:
    source = talks(tmp_path / "source", grouped_decoder, eos_token_id=60)
    made = grouped_decoder.clone()
    if form:
        Kv(form=form, max_loss=None).run(made.ir, PassContext.for_model(made, target))
    _written(made, source, tmp_path / "made", target)
    config = json.loads((tmp_path / "made" / "genai_config.json").read_text())
    assert config["search"]["past_present_share_buffer"] == (target == "ort-cpu")
    assert by_genai(tmp_path / "made", _PROMPT, _LENGTH) == _by_us(tmp_path / "made", target)


@pytest.mark.genai
def test_caches_that_are_not_lowered_are_arrays(
    tmp_path: Path, talks: Talks, by_genai: Writes, grouped_decoder: Model
) -> None:
    """One buffer for both would be read beyond the text."""
    plain = grouped_decoder.clone()
    (attention,) = [node for node in plain.ir.graph if node.op_type == "Attention"]
    attention.attributes["is_causal"] = ir.AttrInt64("is_causal", 1)
    source = talks(tmp_path / "source", plain, eos_token_id=60)
    _written(plain, source, tmp_path / "made", "ort-cpu")
    config = json.loads((tmp_path / "made" / "genai_config.json").read_text())
    assert config["search"]["past_present_share_buffer"] is False
    assert by_genai(tmp_path / "made", _PROMPT, _LENGTH) == _by_us(tmp_path / "made", "ort-cpu")


@pytest.mark.genai
def test_genai_opens_what_is_exported(
    tmp_path: Path, talks: Talks, by_genai: Writes, grouped_decoder: Model
) -> None:
    source = talks(tmp_path / "source", grouped_decoder, eos_token_id=60)
    made = tmp_path / "made"
    written = _exported(grouped_decoder, source, made)
    assert made / "genai_config.json" in written.companions and not written.notes
    assert by_genai(made, _PROMPT, _LENGTH) == _by_us(made, "ort-cpu")


def test_an_export_keeps_the_configuration_that_is_there(
    tmp_path: Path, talks: Talks, grouped_decoder: Model
) -> None:
    source = talks(tmp_path / "source", grouped_decoder)
    made = tmp_path / "made"
    made.mkdir()
    (made / "genai_config.json").write_text("mine")
    written = _exported(grouped_decoder, source, made)
    assert written.notes == ("genai_config.json was there already and stays",)
    assert (made / "genai_config.json").read_text() == "mine"
    _exported(grouped_decoder, source, made, force=True)
    assert (made / "genai_config.json").read_text() != "mine"


def _exported(model: Model, source: Path, folder: Path, *, force: bool = False) -> WrittenExport:
    destination = Destination(folder, is_folder=True)
    parts = [("model", model)]
    main = str(source / "model.onnx")
    return write_export(parts, main, destination, external_data=None, force=force)


def test_we_write_with_a_decoder_that_leaves_the_size_of_a_head_open(
    tmp_path: Path, talks: Talks, grouped_decoder: Model
) -> None:
    """As the builder of onnxruntime-genai does."""
    whole = talks(tmp_path / "whole", grouped_decoder)
    made = grouped_decoder.clone()
    for value in (*made.ir.graph.inputs[3:], *made.ir.graph.outputs[1:]):
        assert value.shape is not None
        value.shape = ir.Shape([*value.shape[:3], "kv_cache_dim"])
    left_open = talks(tmp_path / "open", made)
    assert _by_us(left_open, "ort-cpu") == _by_us(whole, "ort-cpu")


def _by_us(folder: Path, target: str) -> list[int]:
    talker = open_talker(str(folder), target, 1)
    return [piece.token for piece in talker.write(np.array(_PROMPT), _NEW)]


def test_caches_in_different_bits_have_no_configuration(
    tmp_path: Path, talks: Talks, grouped_decoder: Model
) -> None:
    source = talks(tmp_path / "source", grouped_decoder)
    made = lowered(grouped_decoder, find_target("ort-cpu"))
    scale = np.ones((2, 8), np.float32)
    note_codes(made.ir, [CodedCache(f"{bits}", f"{bits}", bits, scale) for bits in (8, 4)])
    made.save(tmp_path / "source" / "model.onnx")
    found = write_config(made, source / "model.onnx")
    assert not found.names and "8 bits and others in 4" in found.notes[0]


def test_a_configuration_that_lacks_something_is_a_note(
    tmp_path: Path, talks: Talks, grouped_decoder: Model
) -> None:
    source = talks(tmp_path / "source", grouped_decoder, eos_token_id=None, hidden_size=None)
    made = _written(grouped_decoder, source, tmp_path / "made", "ort-cpu")
    (note,) = made.notes
    assert note.endswith("config.json next to the model lacks hidden_size, eos_token_id")
    assert not (tmp_path / "made" / "genai_config.json").exists()


def test_a_configuration_that_is_not_json_is_an_error(
    tmp_path: Path, talks: Talks, grouped_decoder: Model
) -> None:
    source = talks(tmp_path / "source", grouped_decoder)
    (source / "config.json").write_text("{")
    with pytest.raises(FileError, match=r"cannot read .*config.json"):
        _written(grouped_decoder, source, tmp_path / "made", "ort-cpu")
    assert not (tmp_path / "made").exists()


@pytest.mark.openvino
def test_openvino_gets_its_name_and_says_what_it_lacks(
    tmp_path: Path, talks: Talks, grouped_decoder: Model
) -> None:
    source = talks(tmp_path / "source", grouped_decoder)
    (source / "tokenizer.json").unlink()
    made = _written(grouped_decoder, source, tmp_path / "made", "openvino-cpu")
    assert made.files[0].name == "openvino_model.xml"
    assert made.notes == ("no tokenizer for OpenVINO GenAI: there is no tokenizer.json",)


def test_the_decoder_of_an_encoder_decoder_is_a_note(
    tmp_path: Path, talks: Talks, grouped_decoder: Model
) -> None:
    made = grouped_decoder.clone()
    kind = ir.TensorType(ir.DataType.FLOAT)
    made.ir.graph.inputs.append(ir.Value(name="encoder_hidden_states", type=kind))
    source = talks(tmp_path / "source", grouped_decoder)
    found = write_config(made, source / "model.onnx")
    assert not found.names and "does not continue a text by itself" in found.notes[0]


@pytest.mark.openvino
def test_openvino_genai_opens_no_cache_of_inputs(tmp_path: Path) -> None:
    from irtools.backends.openvino.genai import complete

    main = tmp_path / "openvino_model.xml"
    main.write_text('<net><layer type="Parameter"/></net>')
    found = complete(main)
    assert not found.names and "its cache stays inputs and outputs" in found.notes[0]
