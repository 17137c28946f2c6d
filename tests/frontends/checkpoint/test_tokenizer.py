"""Checkpoints with a `vocab.txt` and no `tokenizer.json`: text works as data all the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from irtools.cli.main import run
from irtools.data import load_dataset
from irtools.frontends.checkpoint.tokenizer import make_tokenizer
from irtools.model import Model
from irtools.sources import load_source

pytestmark = pytest.mark.torch

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def with_words(source: Path, folder: Path, *words: str) -> Path:
    """A copy of a checkpoint with a vocabulary of 97 words, one a line."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(source / name, folder / name)
    filling = [f"##{number}" for number in range(97 - len(SPECIAL) - len(words))]
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words, *filling]) + "\n")
    return folder


def write_texts(path: Path) -> Path:
    rows = [{"text": "Oil rises", "label": "crude"}, {"text": "a game", "label": "sport"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_export_writes_a_tokenizer_and_text_works_as_data(bert_folder: Path, tmp_path: Path):
    source = with_words(bert_folder, tmp_path / "bert", "oil", "rises", "a", "game")
    assert run(["export", str(source), "-o", str(tmp_path / "out") + "/"]) == 0
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    texts = write_texts(tmp_path / "texts.jsonl")
    data = load_dataset(str(texts), Model.load(tmp_path / "out" / "model.onnx"))
    assert data.feeds["input_ids"].tolist() == [[2, 5, 6, 3], [2, 7, 8, 3]]
    assert data.labels is not None and data.labels.tolist() == [2, 0]


def test_nothing_is_made_where_the_checkpoint_has_a_tokenizer(bert_folder: Path, tmp_path: Path):
    source = with_words(bert_folder, tmp_path / "bert", "oil")
    (source / "tokenizer.json").write_text("{}")
    assert make_tokenizer(source) == {}


@pytest.mark.slow
def test_a_tokenizer_that_is_there_stays(bert_folder: Path, tmp_path: Path):
    source = with_words(bert_folder, tmp_path / "bert", "oil")
    out = tmp_path / "out"
    out.mkdir()
    (out / "tokenizer.json").write_text("mine")
    assert run(["export", str(source), "-o", str(out / "bert.onnx")]) == 0
    assert (out / "tokenizer.json").read_text() == "mine"


def test_the_model_reads_text_before_it_is_written(bert_folder: Path, tmp_path: Path):
    source = with_words(bert_folder, tmp_path / "bert", "oil", "rises", "a", "game")
    model = load_source(str(source))
    data = load_dataset(str(write_texts(tmp_path / "texts.jsonl")), model)
    assert data.feeds["input_ids"].tolist() == [[2, 5, 6, 3], [2, 7, 8, 3]]


def test_a_vocabulary_with_capitals_keeps_them(bert_folder: Path, tmp_path: Path):
    source = with_words(bert_folder, tmp_path / "bert", "Oil", "oil")
    tokens = json.loads(make_tokenizer(source)["tokenizer.json"])
    assert tokens["normalizer"]["lowercase"] is False


def test_a_vocabulary_that_is_not_found_again_gives_no_tokenizer(bert_folder: Path, tmp_path: Path):
    source = with_words(bert_folder, tmp_path / "albert", "oil")
    config = json.loads((source / "config.json").read_text())
    # ALBERT reads sentencepiece, so this list is of some tokenizer that only its author has.
    (source / "config.json").write_text(json.dumps(config | {"model_type": "albert"}))
    assert make_tokenizer(source) == {}
