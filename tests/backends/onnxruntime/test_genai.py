"""Folders that onnxruntime-genai opens, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irtools.driver.artifact import compile_to
from irtools.driver.destination import Destination
from irtools.driver.talk import open_talker
from irtools.errors import FileError
from irtools.model import Model
from irtools.passes.quantization.kv import Kv
from irtools.passmanager import PassContext
from irtools.targets import Artifact, find_target

Talks = Callable[..., Path]
_PROMPT = [5, 9, 30, 11]
_NEW = 8


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
    tmp_path: Path, talks: Talks, grouped_decoder: Model, target: str, form: str
) -> None:
    import onnxruntime_genai as genai

    source = talks(tmp_path / "source", grouped_decoder, eos_token_id=60)
    made = grouped_decoder.clone()
    if form:
        Kv(form=form).run(made.ir, PassContext.for_model(made, target))
    _written(made, source, tmp_path / "made", target)
    config = json.loads((tmp_path / "made" / "genai_config.json").read_text())
    assert config["search"]["past_present_share_buffer"] == (target == "ort-cpu")
    model = genai.Model(str(tmp_path / "made"))
    params = genai.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=len(_PROMPT) + _NEW)
    generator = genai.Generator(model, params)
    generator.append_tokens(np.array(_PROMPT, np.int32))
    found = []
    while not generator.is_done():
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    talker = open_talker(str(tmp_path / "made"), target, 1)
    ours = [piece.token for piece in talker.write(np.array(_PROMPT), _NEW)]
    assert found == ours


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
