"""Trimming where one condition decides: each was broken on purpose and nothing else saw it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from irtools.data import Dataset, DataSettings, load_dataset
from irtools.errors import UnsupportedError
from irtools.model import Model
from irtools.passes.vocabulary.files import renumbered_files
from irtools.passes.vocabulary.table import (
    Refusal,
    TokenTable,
    find_table,
    gives_tokens,
    put_map,
)
from irtools.passes.vocabulary.tokenizer import TokenizerFile
from irtools.passes.vocabulary.trim import TrimVocabulary
from irtools.passes.vocabulary.usage import check_same_tokens
from irtools.passmanager import PassContext, PassResult

from .conftest import classifier

WORDS = ["[PAD]", "[UNK]", "aa", "bb", "cc", "dd", "ee"]


def words(*more: str) -> bytes:
    """A tokenizer of whole words, numbered in this order."""
    numbered = {word: number for number, word in enumerate([*WORDS, *more])}
    made = Tokenizer(models.WordLevel(numbered, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made.to_str().encode()


def context(
    ids: Sequence[Sequence[int]] | None, tokenizer: bytes, evaluation: Dataset | None = None
) -> PassContext:
    def absent(*_: object) -> object:
        raise AssertionError("nothing is measured here")

    data = None
    if ids is not None:
        array = np.array(ids)
        data = Dataset({"input_ids": array, "attention_mask": np.ones_like(array)})
    files = {"tokenizer.json": tokenizer}
    return PassContext(absent, absent, absent, absent, data, evaluation, companions=files)


def kept(model: ir.Model, result: PassResult) -> list[int]:
    """Old numbers of the rows that stayed, by the table; all rows of a test's table differ."""
    assert result.modified
    old = classifier(len(WORDS)).graph.initializers["w"].const_value.numpy()
    new = model.graph.initializers["w"].const_value.numpy()
    return [next(i for i, row in enumerate(old) if (row == own).all()) for own in new]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (TrimVocabulary(mode="remap", min_count=3), [1, 2]),
        (TrimVocabulary(mode="remap", min_count=2), [1, 2, 3]),
        (TrimVocabulary(mode="remap"), [1, 2, 3, 4]),
        (TrimVocabulary(mode="remap", keep="2"), [1, 2, 3]),
    ],
)
def test_tokens_are_counted(options: TrimVocabulary, wanted: list[int]) -> None:
    model = classifier(len(WORDS))
    result = options.run(model, context([[2, 2, 2], [3, 3, 4]], words()))
    assert kept(model, result) == wanted


def test_tokens_that_a_file_names_are_kept_whatever_the_count(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("dd\n")
    options = TrimVocabulary(mode="remap", keep=str(tmp_path / "keep.txt"), min_count=9)
    model = classifier(len(WORDS))
    assert kept(model, options.run(model, context(None, words()))) == [1, 5]


def test_all_of_ascii_stays_with_the_characters_of_the_text() -> None:
    tokenizer = TokenizerFile.parse(words("!", "~", "é"))
    options = TrimVocabulary(characters="used")
    rows = len(WORDS) + 3
    assert options._kept(tokenizer, {2}, rows) == [1, 2, 7, 8]
    assert TrimVocabulary()._kept(tokenizer, {2}, rows) == [1, 2, 7, 8, 9]
    # The table may have fewer rows than the tokenizer has tokens.
    assert TrimVocabulary()._kept(tokenizer, {2, 6}, 8) == [1, 2, 6, 7]


def test_test_data_of_numbers_keeps_the_numbers(task: Path) -> None:
    model = Model.load(task / "model.onnx")
    texts = load_dataset(
        str(task / "data" / "half.jsonl"), model, DataSettings(tokenizer=task / "tokenizer.json")
    )
    arrays = replace(texts, texts=None, source="test.npz")
    ctx = context(None, (task / "tokenizer.json").read_bytes())
    ctx.calibration = texts
    assert TrimVocabulary().run(model.ir.clone(), ctx).companions
    ctx.evaluation = arrays
    result = TrimVocabulary().run(model.ir.clone(), ctx)
    assert result.modified and not result.companions
    assert "test.npz holds tokens, not text" in result.notes[0]


def graph(body: str, inputs: str = "int64[n, s] input_ids", outputs: str = "float[n, 2] y"):
    rows = ", ".join(["0.0"] * 12)
    return ir.from_onnx_text(f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g ({inputs}) => ({outputs})
    <float[6, 2] w = {{{rows}}}, float[4, 3] v = {{{rows}}}, int64 zero = {{0}}, int64 one = {{1}},
     int64[1] axes = {{1}}> {{ {body} }}
    """)


SUM = "e = Gather(w, input_ids) y = ReduceSum<keepdims=0>(e, axes)"


def table(model: ir.Model) -> TokenTable:
    found = find_table(model)
    assert isinstance(found, TokenTable), found
    return found


def test_the_input_called_input_ids_comes_before_a_larger_table() -> None:
    other = "f = Gather(w, kinds) y = ReduceSum<keepdims=0>(f, axes)"
    model = graph(
        f"e = Gather(v, input_ids) x = ReduceSum<keepdims=0>(e, axes) {other}",
        "int64[n, s] kinds, int64[n, s] input_ids",
        "float[n, 2] y, float[n, 3] x",
    )
    assert (table(model).ids.name, table(model).rows) == ("input_ids", 4)


def test_a_smaller_table_behind_the_same_ids_reads_their_values() -> None:
    both = f"f = Gather(v, input_ids) x = ReduceSum<keepdims=0>(f, axes) {SUM}"
    found = table(graph(both, outputs="float[n, 2] y, float[n, 3] x"))
    assert found.rows == 6 and len(found.lookups) == 1 and found.reads_values
    assert not table(graph(SUM)).reads_values


def test_sizes_of_the_ids_are_no_values() -> None:
    assert not table(graph(f"{SUM} z = Shape(input_ids)")).reads_values
    assert table(graph(f"{SUM} z = Equal(input_ids, zero)")).reads_values


def test_a_table_that_is_an_output_stays() -> None:
    found = find_table(graph(SUM, outputs="float[n, 2] y, float[6, 2] w"))
    assert isinstance(found, Refusal) and found.counter == "num-skipped-tied"
    assert "an output" in found.reason


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ("float[n, 2] y", False),
        ("float[?, 2] y", False),
        ("float[n, s] y", True),
        ("float[n, ?] y", True),
        ("float[s, 2] y", True),
        ("float[n, s, 2] y", True),
    ],
)
def test_outputs_with_a_place_for_each_token(outputs: str, expected: bool) -> None:
    model = graph(SUM, outputs=outputs)
    assert gives_tokens(model, model.graph.inputs[0]) == expected


def test_two_lookups_of_the_same_ids_share_one_map() -> None:
    twice = "e = Gather(w, input_ids) f = Gather(w, input_ids) a = Add(e, f) "
    model = graph(twice + "y = ReduceSum<keepdims=0>(a, axes)")
    put_map(model, table(model), np.zeros(6, np.int32))
    assert [node.op_type for node in model.graph].count("Gather") == 3


def test_files_forget_the_tokens_that_are_gone() -> None:
    tokenizer = TokenizerFile.parse(words())
    others = {
        "config.json": b'{"eos_token_id": [2, 3, 5], "pad_token_id": 0, "bos_token_id": 3}',
        "tokenizer_config.json": json.dumps(
            {"added_tokens_decoder": {"0": {"content": "[PAD]"}, "3": {"content": "bb"}}}
        ).encode(),
        "vocab.txt": b"",
    }
    files = renumbered_files(tokenizer, [0, 1, 2, 5, 9], others)
    config = json.loads(files["config.json"])
    assert config["eos_token_id"] == [2, 3] and config["bos_token_id"] is None
    assert config["vocab_size"] == 5
    settings = json.loads(files["tokenizer_config.json"])
    assert settings["added_tokens_decoder"] == {"0": {"content": "[PAD]"}}
    # A row of the table without a token keeps its line.
    assert files["vocab.txt"].decode().split("\n") == ["[PAD]", "[UNK]", "aa", "dd", "", ""]


def test_bytes_marks_of_place_and_prefixes() -> None:
    pieces = {"<unk>": 0, "<0x0A>": 1, "\u2581": 2, "\u2581a": 3, "\u2581ab": 4}
    unigram = {
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [[piece, -1.0] for piece in pieces],
            "byte_fallback": True,
        },
        "added_tokens": [],
    }
    file = TokenizerFile.parse(json.dumps(unigram).encode())
    assert file.essential() == file.essential({"a"}) == {0, 1, 2, 3}
    vocabulary = {"a": 0, "##b": 1, "##c": 2, "##bc": 3, "abc": 4}
    bpe = {
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": ["##b ##c", "a ##bc"],
            "continuing_subword_prefix": "##",
        },
        "added_tokens": [],
    }
    file = TokenizerFile.parse(json.dumps(bpe).encode())
    assert file.close({4}) == {0, 1, 2, 3, 4}


def test_the_number_of_the_unknown_piece_follows_it() -> None:
    document = {
        "model": {"type": "Unigram", "unk_id": 2, "vocab": [["ab", -1.0], ["a", -1.0], ["?", 0.0]]},
        "added_tokens": [],
    }
    file = TokenizerFile.parse(json.dumps(document).encode())
    assert json.loads(file.trim([1, 2]))["model"]["unk_id"] == 1


def test_a_trimmed_tokenizer_that_cuts_texts_differently_is_noticed(task: Path) -> None:
    model = Model.load(task / "model.onnx")
    content = (task / "tokenizer.json").read_bytes()
    settings = DataSettings(tokenizer=task / "tokenizer.json")
    ctx = context(None, content)
    ctx.calibration = load_dataset(str(task / "data" / "half.jsonl"), model, settings)
    everything = range(len(TokenizerFile.parse(content).ids))
    check_same_tokens(ctx, everything, content)
    document = json.loads(content)
    words = [w for w in ("wheat", "the") if w in document["model"]["vocab"]]
    first, second = (document["model"]["vocab"][w] for w in words)
    document["model"]["vocab"] |= {words[0]: second, words[1]: first}
    with pytest.raises(UnsupportedError, match=r"cuts .* differently"):
        check_same_tokens(ctx, everything, json.dumps(document).encode())


@pytest.mark.parametrize(("mark", "blocked"), [("[PAD]", False), ("dd", True)])
def test_a_model_that_reads_ids_keeps_the_tokenizer_where_marks_would_move(
    task: Path, mark: str, blocked: bool
) -> None:
    """Positions that are counted from padding: its number must stay."""
    document = json.loads(words())
    number = WORDS.index(mark)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    document["added_tokens"] = [{"id": number, "content": mark, "special": True, **flags}]
    model = graph(f"{SUM} z = Equal(input_ids, zero)")
    (task / "words.json").write_text(json.dumps(document))
    (task / "rows.jsonl").write_text(json.dumps({"text": f"aa {mark}"}) + "\n")
    ctx = context(None, json.dumps(document).encode())
    ctx.calibration = load_dataset(
        str(task / "rows.jsonl"), Model(model), DataSettings(tokenizer=task / "words.json")
    )
    result = TrimVocabulary().run(model, ctx)
    assert result.modified and bool(result.companions) != blocked
    assert ("computes with the numbers" in result.notes[0]) == blocked
