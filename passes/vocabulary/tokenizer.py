"""Tokenizer files (`tokenizer.json`) with fewer tokens.

A text whose tokens are all kept is tokenized as before:

    WordPiece   takes the longest piece of the vocabulary that fits. A longer one was not there
                before, so none is now.
    BPE         builds a token by merges, and every merge that took part built a part of a final
                token. So what is kept is closed: with a token go both halves of every merge that
                makes it, down to single characters; merges with all three parts kept stay, in
                their order.
    Unigram     takes the best path of pieces. Fewer pieces leave fewer paths, and the best one if
                its pieces are all there.

Every other text falls back to shorter pieces, which is why single characters and bytes stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irtools.errors import DataError

__all__ = ["TokenizerFile"]

_KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_SPACE = "\u2581"


@dataclass(frozen=True)
class TokenizerFile:
    """A parsed `tokenizer.json`.

    Attributes:
        document: All of it. Never written into.
        ids: Token to its number, added tokens included.
    """

    document: Mapping[str, Any]
    ids: Mapping[str, int]

    @classmethod
    def parse(cls, content: bytes, name: str = "tokenizer.json") -> TokenizerFile:
        """Read a file.

        Raises:
            DataError: It is none, or of a kind whose vocabulary cannot be trimmed.
        """
        try:
            document = json.loads(content)
            model = document["model"]
            ids = dict(_vocabulary(model))
            added = {token["content"]: int(token["id"]) for token in document["added_tokens"]}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{name} is not a tokenizer.json of the tokenizers library: {error!r}"
            ) from error
        if _kind(model) not in _KINDS:
            raise DataError(
                f"{name} holds a tokenizer of type {_kind(model)!r}; the vocabulary of "
                f"{', '.join(_KINDS)} can be trimmed"
            )
        return cls(document, {**ids, **added})

    @property
    def kind(self) -> str:
        """`WordPiece`, `BPE`, `Unigram` or `WordLevel`."""
        return _kind(self.document["model"])

    @property
    def unknown(self) -> int | None:
        """Number of the token that stands for what has none."""
        model = self.document["model"]
        if self.kind == "Unigram":
            found = model.get("unk_id")
            return None if found is None else int(found)
        return self.ids.get(model.get("unk_token") or "")

    @property
    def marks(self) -> set[int]:
        """Numbers of the added tokens, such as [CLS] and padding."""
        return {int(token["id"]) for token in self.document["added_tokens"]}

    def tokens_of(self, ids: Collection[int]) -> list[str]:
        """Return the tokens with these numbers."""
        return [token for token, number in self.ids.items() if number in ids]

    def essential(self, characters: Collection[str] | None = None) -> set[int]:
        """Return the tokens that any text may need.

        They are the added tokens (marks such as [CLS]), the one for what is unknown, bytes, and
        single characters, alone and as they appear inside a word.

        Args:
            characters: Only these characters; None: every one that has a token.
        """
        found = self.marks
        if self.unknown is not None:
            found.add(self.unknown)
        for token, number in self.ids.items():
            bare = self._bare(token)
            if _BYTE.fullmatch(token) or (
                len(bare) <= 1 and (characters is None or not bare or bare in characters)
            ):
                found.add(number)
        return found

    def characters(self, ids: Collection[int]) -> set[str]:
        """Return the characters of which some tokens consist."""
        return {c for token in self.tokens_of(ids) for c in self._bare(token)}

    def close(self, ids: Iterable[int]) -> set[int]:
        """Add what is needed to build tokens: the halves of every merge that makes one."""
        kept = set(ids)
        for left, right, whole in reversed(list(self._merges())):
            if self.ids.get(whole) in kept:
                kept.update(self.ids[part] for part in (left, right) if part in self.ids)
        return kept

    def trim(self, kept: Sequence[int]) -> bytes:
        """Return the file with only these tokens, numbered from 0 in this order.

        Args:
            kept: Ascending; holds all of `essential` and is closed.
        """
        number = {old: new for new, old in enumerate(kept)}
        document = dict(self.document)
        document["model"] = self._trimmed_model(number)
        document["added_tokens"] = [
            {**token, "id": number[int(token["id"])]} for token in document["added_tokens"]
        ]
        if document.get("post_processor"):
            document["post_processor"] = _renumber(document["post_processor"], number)
        padding = document.get("padding")
        if padding and "pad_id" in padding:
            document["padding"] = {**padding, "pad_id": number[int(padding["pad_id"])]}
        return json.dumps(document, ensure_ascii=False, indent=1).encode()

    def _trimmed_model(self, number: Mapping[int, int]) -> dict[str, Any]:
        model = dict(self.document["model"])
        if self.kind == "Unigram":
            model["vocab"] = [row for i, row in enumerate(model["vocab"]) if i in number]
            if self.unknown is not None:
                model["unk_id"] = number[self.unknown]
            return model
        own = model["vocab"]
        model["vocab"] = {token: number[i] for token, i in own.items() if i in number}
        if self.kind == "BPE":
            model["merges"] = [
                merge
                for merge, parts in zip(model["merges"], self._merges(), strict=True)
                if all(self.ids.get(part) in number for part in parts)
            ]
        return model

    def _merges(self) -> Iterator[tuple[str, str, str]]:
        """Yield (left, right, what they make) of every merge, the first to be made first."""
        model = self.document["model"]
        if self.kind != "BPE":
            return
        prefix = model.get("continuing_subword_prefix") or ""
        for merge in model["merges"]:
            left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
            yield left, right, left + right.removeprefix(prefix)

    def _bare(self, token: str) -> str:
        """Return the text of a token without what marks its place in a word."""
        model = self.document["model"]
        default = "##" if self.kind == "WordPiece" else ""
        bare = token.removeprefix(model.get("continuing_subword_prefix") or default)
        suffix = model.get("end_of_word_suffix") or ""
        bare = bare.removesuffix(suffix) if suffix else bare
        return bare.removeprefix(_SPACE) if self.kind == "Unigram" else bare


def _kind(model: Mapping[str, Any]) -> str:
    """Return the type of a tokenizer model; old files leave it out."""
    if "type" in model:
        return str(model["type"])
    if "merges" in model:
        return "BPE"
    return "Unigram" if isinstance(model["vocab"], list) else "WordPiece"


def _vocabulary(model: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        yield from ((row[0], index) for index, row in enumerate(vocabulary))
    else:
        yield from ((token, int(number)) for token, number in vocabulary.items())


def _renumber(part: Mapping[str, Any], number: Mapping[int, int]) -> dict[str, Any]:
    """Return a post-processor with the new numbers of its marks."""
    found = dict(part)
    match found.get("type"):
        case "TemplateProcessing":
            found["special_tokens"] = {
                name: {**token, "ids": [number[int(i)] for i in token["ids"]]}
                for name, token in found["special_tokens"].items()
            }
        case "BertProcessing" | "RobertaProcessing":
            for key in ("sep", "cls"):
                token, old = found[key]
                found[key] = [token, number[int(old)]]
        case "Sequence":
            found["processors"] = [_renumber(inner, number) for inner in found["processors"]]
    return found
