"""A decoder in use: prompts, ends, the room in its context, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.decoder import CachedDecoder, find_text_decoder
from irtools.driver.talk import Piece, Talker, find_main, open_talker, speed_of
from irtools.errors import DataError, FileError, ModelError, UnsupportedError, UsageError
from irtools.measure.generate import write_greedily
from irtools.model import Model
from irtools.targets import RunnerOptions, begin_text, find_target
from irtools.testing.models import mlp

Talks = Callable[..., Path]


@pytest.fixture
def talker(tmp_path: Path, talks: Talks, cached_decoder: Model) -> Iterator[Talker]:
    found = open_talker(str(talks(tmp_path / "d", cached_decoder)), None, 1)
    yield found
    found.close()


def _greedy(model: Model, prompt: np.ndarray, count: int) -> list[int]:
    decoder = find_text_decoder(model.ir)
    assert decoder is not None
    with find_target("ort-cpu").runner(model, RunnerOptions(threads=1)) as runner:
        return [int(i) for i in write_greedily(runner, decoder, prompt[None], count).tokens[0]]


def test_the_likeliest_tokens_one_by_one(talker: Talker, cached_decoder: Model) -> None:
    prompt = talker.raw("w5 w9 w30")
    assert prompt.tolist() == [5, 9, 30]
    pieces = list(talker.write(prompt, 8))
    assert [piece.token for piece in pieces] == _greedy(cached_decoder, prompt, 8)
    assert "".join(piece.text for piece in pieces).split() == [f"w{p.token}" for p in pieces]
    assert all(piece.seconds > 0 for piece in pieces)


@pytest.mark.chat
def test_a_question_goes_through_the_template(talker: Talker) -> None:
    assert talker.chat("w5").tolist() == [5, 7, 8]


def test_a_text_ends_with_its_end_token(
    tmp_path: Path, talks: Talks, cached_decoder: Model
) -> None:
    prompt = np.array([5, 9, 30])
    tokens = _greedy(cached_decoder, prompt, 8)
    # The first token that was not there before.
    end = next(n for n in range(1, 8) if tokens[n] not in tokens[:n])
    folder = talks(tmp_path / "d", cached_decoder, eos_token_id=[60, tokens[end]])
    talker = open_talker(str(folder / "model.onnx"), "ort-cpu", 1)
    assert [piece.token for piece in talker.write(prompt, 8)] == tokens[: end + 1]


def test_a_text_stays_in_its_context(talker: Talker) -> None:
    assert talker.context_length == 24
    assert len(list(talker.write(np.full(20, 5), 100))) <= 4
    with pytest.raises(DataError, match=r"the prompt has 24 tokens, and the context of .* is 24"):
        next(talker.write(np.full(24, 5), 1))


def test_the_context_is_that_of_genai_where_no_other_file_says_it(
    tmp_path: Path, talks: Talks, cached_decoder: Model
) -> None:
    folder = talks(tmp_path / "d", cached_decoder)
    (folder / "config.json").unlink()
    for content in ("{}", '{"model": 5}', '{"model": {"context_length": "long"}}'):
        (folder / "genai_config.json").write_text(content)
        talker = open_talker(str(folder), None, 1)
        assert talker.context_length is None
        # The model has 48 positions.
        with pytest.raises(DataError, match="cannot run the model") as caught:
            list(talker.write(np.full(47, 5), 4))
        assert caught.value.__notes__ == [
            f"after 48 tokens; no config.json next to {folder} says how long its texts may be"
        ]
        talker.close()
    (folder / "genai_config.json").write_text('{"model": {"context_length": 10}}')
    talker = open_talker(str(folder), None, 1)
    with pytest.raises(DataError, match=r"the context of .* is 10: shorten it"):
        next(talker.write(np.full(10, 5), 1))
    talker.close()


def test_an_empty_prompt_is_one_line(talker: Talker) -> None:
    with pytest.raises(DataError, match=r"^the prompt has no tokens$"):
        talker.raw("")


def test_what_does_not_write_text(tmp_path: Path, talks: Talks) -> None:
    folder = talks(tmp_path / "d", mlp())
    with pytest.raises(UnsupportedError, match="does not write text: expected a decoder with its"):
        open_talker(str(folder), None, 1)


def test_a_folder_without_a_tokenizer(tmp_path: Path, cached_decoder: Model) -> None:
    cached_decoder.save(tmp_path / "model.onnx")
    with pytest.raises(FileError, match=r"has no tokenizer.json next to it"):
        open_talker(str(tmp_path), None, 1)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FileError, match=r"^cannot read .*tokenizer.json: .") as caught:
        open_talker(str(tmp_path), None, 1)
    assert "\n" not in str(caught.value)


def test_the_model_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no file or folder"):
        find_main(tmp_path / "none")
    with pytest.raises(FileError, match=r"holds no model \(.onnx, .ort or .xml\)"):
        find_main(tmp_path)
    for name in ("openvino_model.xml", "openvino_tokenizer.xml", "openvino_detokenizer.xml"):
        (tmp_path / name).touch()
    assert find_main(tmp_path).name == "openvino_model.xml"
    (tmp_path / "model.onnx").touch()
    with pytest.raises(UsageError, match=r"several models: name one of model.onnx, openvino_model"):
        find_main(tmp_path)


def test_speed_counts_the_first_token_apart() -> None:
    pieces = [Piece(1, "", 3.0), Piece(2, "", 0.5), Piece(3, "", 0.5)]
    found = speed_of(np.zeros(4), pieces)
    assert (found.first_seconds, found.tokens_per_second) == (3.0, 2.0)
    assert speed_of(np.zeros(4), pieces[:1]).tokens_per_second is None


def _past(model: Model, length: int = 3, **changed: np.ndarray) -> dict[str, np.ndarray]:
    decoder = find_text_decoder(model.ir)
    assert isinstance(decoder, CachedDecoder)
    rng = np.random.default_rng(0)
    made = {
        cache.name: rng.normal(size=(1, cache.heads, length, cache.size)).astype(np.float32)
        for cache in decoder.past
    }
    return made | changed


def test_a_learned_prompt_is_read_before_the_text(
    tmp_path: Path, talks: Talks, cached_decoder: Model
) -> None:
    folder = talks(tmp_path / "d", cached_decoder)
    past, prompt = _past(cached_decoder), np.array([5, 9, 30])
    np.savez(folder / "tuned.past.npz", **past)
    talker = open_talker(str(folder), None, 1, "tuned")
    written = [piece.token for piece in talker.write(prompt, 4)]
    decoder = find_text_decoder(cached_decoder.ir)
    assert decoder is not None
    with find_target("ort-cpu").runner(cached_decoder, RunnerOptions(threads=1)) as runner:
        text = begin_text(runner, decoder, 1, past)
        wanted = [int(text.read(prompt[None])[0, -1].argmax())]
        wanted += [int(text.read(np.array([[wanted[-1]]]))[0, -1].argmax()) for _ in "."]
    assert written[:2] == wanted
    talker.use_adapter(None)
    assert [p.token for p in talker.write(prompt, 4)] == _greedy(cached_decoder, prompt, 4)
    talker.close()


def test_a_learned_prompt_takes_room_of_the_context(
    tmp_path: Path, talks: Talks, cached_decoder: Model
) -> None:
    folder = talks(tmp_path / "d", cached_decoder, max_position_embeddings=8)
    np.savez(folder / "tuned.past.npz", **_past(cached_decoder, 5))
    talker = open_talker(str(folder), None, 1, "tuned")
    with pytest.raises(DataError, match=r"the context of .* is 8, 5 of it taken by the adapter"):
        list(talker.write(np.array([5, 9, 30]), 4))
    talker.close()


def test_adapters_that_are_not_there_or_of_another_model_are_one_line(
    tmp_path: Path, talks: Talks, cached_decoder: Model
) -> None:
    folder = talks(tmp_path / "d", cached_decoder)
    with pytest.raises(FileError, match="has no adapter 'x'; none is next to the model"):
        open_talker(str(folder), None, 1, "x")
    wrong = {"past_key_values.0.key": np.zeros((1, 7, 3, 2), np.float32)}
    np.savez(folder / "other.past.npz", **_past(cached_decoder, **wrong))
    with pytest.raises(FileError, match="has no adapter 'x'; it has other"):
        open_talker(str(folder), None, 1, "x")
    with pytest.raises(ModelError, match=r"for another model: it holds .*\(1, 7, 2\)"):
        open_talker(str(folder), None, 1, "other")


@pytest.mark.parametrize(
    ("length", "changed", "message"),
    [
        (3, {"past_key_values.0.key": np.zeros((1, 1, 4, 8), np.float32)}, "of 3 or 4 tokens, and"),
        (3, {"past_key_values.0.key": np.zeros((), np.float32)}, r"2 arrays of \[\(\), \(1, 1, 8"),
        (3, {"past_key_values.1.key": np.zeros((1, 1, 3, 8), np.float32)}, "holds 3 arrays of"),
        (3, {"past_key_values.0.key": np.zeros((1, 1, 3, 8), "U1")}, "as str32: expected float"),
        (
            3,
            {"past_key_values.0.key": np.full((1, 1, 3, 8), np.nan)},
            "values.0.key' has numbers",
        ),
        (24, {}, r"cache of 24 tokens, and the context of .* is 24: none is left for a text"),
    ],
)
def test_a_learned_prompt_that_does_not_fit_is_one_line(
    tmp_path: Path,
    talks: Talks,
    cached_decoder: Model,
    length: int,
    changed: dict[str, np.ndarray],
    message: str,
) -> None:
    folder = talks(tmp_path / "d", cached_decoder)
    np.savez(folder / "bad.past.npz", **_past(cached_decoder, length, **changed))
    with pytest.raises(ModelError, match=message) as caught:
        open_talker(str(folder), None, 1, "bad")
    assert "\n" not in str(caught.value)


def test_damaged_and_packed_learned_prompts_are_one_line(
    tmp_path: Path, talks: Talks, cached_decoder: Model
) -> None:
    folder = talks(tmp_path / "d", cached_decoder)
    path = folder / "bad.past.npz"
    np.savez_compressed(path, **_past(cached_decoder))
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[:300], whole[:80] + b"\xff" * 40 + whole[120:]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="is not a file of arrays, or damaged"):
            open_talker(str(folder), None, 1, "bad")


@pytest.mark.parametrize("ends", ["</s>", [2, "</s>"], [[2]], {"a": 1}, 2.5])
def test_end_tokens_that_are_not_numbers_are_named(
    tmp_path: Path, talks: Talks, cached_decoder: Model, ends: object
) -> None:
    talker = open_talker(str(talks(tmp_path / "d", cached_decoder, eos_token_id=ends)), None, 1)
    with pytest.raises(FileError, match=r"config.json: eos_token_id is .*, expected a token's n"):
        list(talker.write(np.array([5]), 2))
    talker.close()


def test_an_encoder_with_its_decoder_is_refused_in_one_line(
    tmp_path: Path, talks: Callable[..., Path], cached_decoder: Model
) -> None:
    decoder = cached_decoder.clone()
    mask = ir.Value(
        name="encoder_attention_mask",
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape(["batch", "encoder_sequence"]),
    )
    decoder.ir.graph.inputs.append(mask)
    talks(tmp_path)
    for name in ("encoder_model", "decoder_model"):
        decoder.save(tmp_path / f"{name}.onnx")
    for source in (tmp_path, tmp_path / "decoder_model.onnx"):
        with pytest.raises(UnsupportedError, match="writes from what its encoder has read"):
            open_talker(str(source), None, 1)
