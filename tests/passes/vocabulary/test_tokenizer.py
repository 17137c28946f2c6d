"""Tokenizer files with fewer tokens: the same tokens for every text that needs no others."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from irtools.errors import DataError
from irtools.passes.vocabulary.tokenizer import TokenizerFile

from .conftest import KINDS, TEXTS

MADE = {kind: make() for kind, make in KINDS.items()}
WORDS = sorted({word for text in TEXTS for word in text.split()})


def parsed(tokenizer: Tokenizer) -> TokenizerFile:
    return TokenizerFile.parse(tokenizer.to_str().encode())


def trimmed(tokenizer: Tokenizer, ids: set[int]) -> tuple[Tokenizer, dict[int, int]]:
    file = parsed(tokenizer)
    kept = sorted(file.close(ids | file.essential()))
    made = Tokenizer.from_str(file.trim(kept).decode())
    return made, {old: new for new, old in enumerate(kept)}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(
    chosen=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6),
    others=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6),
)
def test_texts_of_kept_tokens_are_cut_as_before(
    kind: str, chosen: list[str], others: list[str]
) -> None:
    tokenizer = MADE[kind]
    texts = [" ".join(chosen), " ".join(reversed(chosen))]
    ids = {i for text in texts for i in tokenizer.encode(text).ids}
    made, number = trimmed(tokenizer, ids)
    for text in (*texts, " ".join(others)):
        before = tokenizer.encode(text).ids
        if all(i in number for i in before):
            assert made.encode(text).ids == [number[i] for i in before]
    assert texts and all(i in number for i in tokenizer.encode(texts[0]).ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_that_is_gone_falls_back_to_pieces(kind: str) -> None:
    tokenizer = MADE[kind]
    made, number = trimmed(tokenizer, set(tokenizer.encode("wheat").ids))
    assert len(number) < tokenizer.get_vocab_size()
    ids = made.encode("northern interest").ids
    assert made.token_to_id("[UNK]") not in ids
    assert len(ids) > len(tokenizer.encode("northern interest").ids)
    assert made.decode(ids).replace(" ", "").replace("##", "") in (
        "northerninterest",
        "\u2581northern\u2581interest",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_without_gaps_everywhere(kind: str) -> None:
    tokenizer = MADE[kind]
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    made, number = trimmed(tokenizer, set(tokenizer.encode("oil").ids))
    tokenizer.no_padding()
    assert sorted(made.get_vocab().values()) == list(range(len(number)))
    document = json.loads(made.to_str())
    for token in document["added_tokens"]:
        assert number[tokenizer.token_to_id(token["content"])] == token["id"]
    marks = document["post_processor"]["special_tokens"]
    assert marks["[SEP]"]["ids"] == [made.token_to_id("[SEP]")]
    pair = made.encode("oil", "oil").ids
    assert pair.count(made.token_to_id("[SEP]")) == 2
    assert document["padding"]["pad_id"] == made.token_to_id("[PAD]")


def test_merges_go_with_their_tokens() -> None:
    file = parsed(MADE["BPE"])
    kept = sorted(file.close(file.essential() | set(MADE["BPE"].encode("harvest").ids)))
    document = json.loads(file.trim(kept))
    vocabulary = set(document["model"]["vocab"])
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m)
              for m in document["model"]["merges"]]  # fmt: skip
    assert 0 < len(merges) < len(file.document["model"]["merges"])
    assert all({a, b, a + b} <= vocabulary for a, b in merges)


def test_characters_may_be_those_of_the_text_alone() -> None:
    file = parsed(MADE["WordPiece"])
    every, few = file.essential(), file.essential({"o", "i", "l"})
    assert file.marks < few < every
    assert {"o", "i", "l", "##o"} >= set(file.tokens_of(few - file.marks)) - {"##i", "##l"}


def test_bert_and_roberta_marks_are_renumbered() -> None:
    document = json.loads(MADE["WordPiece"].to_str())
    ids = {"[SEP]": 3, "[CLS]": 2}
    document["post_processor"] = {
        "type": "Sequence",
        "processors": [
            {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            },
        ],
    }
    # The marks come after other tokens, so that their numbers change.
    vocabulary = document["model"]["vocab"]
    last = max(vocabulary.values())
    swap = {ids["[SEP]"]: last, last: ids["[SEP]"]}
    document["model"]["vocab"] = {t: swap.get(i, i) for t, i in vocabulary.items()}
    for token in document["added_tokens"]:
        token["id"] = swap.get(token["id"], token["id"])
    document["post_processor"]["processors"][0]["sep"][1] = last
    file = TokenizerFile.parse(json.dumps(document).encode())
    made = Tokenizer.from_str(file.trim(sorted(file.essential())).decode())
    assert made.encode("oil").ids[-1] == made.token_to_id("[SEP]") != last


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b'{"model": {}}', b'{"model": {"type": "Odd", "vocab": {}}, "added_tokens": []}'],
)
def test_what_is_no_tokenizer_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        TokenizerFile.parse(content)


def test_word_level_has_no_pieces_to_fall_back_to() -> None:
    made = Tokenizer(models.WordLevel({"a": 0, "house": 1, "<unk>": 2}, unk_token="<unk>"))
    file = parsed(made)
    assert file.essential() == {0, 2} and file.unknown == 2
