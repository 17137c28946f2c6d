"""Which tokens data uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from irtools.data import Dataset, encode_texts, read_texts
from irtools.errors import DataError, UnsupportedError
from irtools.passes.vocabulary.tokenizer import TokenizerFile
from irtools.passmanager import PassContext

__all__ = ["check_same_tokens", "count_tokens", "read_token_file"]

_TABLES = frozenset({".jsonl", ".csv", ".tsv", ".parquet"})
_CHECKED = 256


def count_tokens(data: Dataset, name: str) -> Counter[int]:
    """Count the tokens of a dataset, padding included: its token is needed as well.

    Args:
        name: The input that holds token ids.
    """
    tokens, counts = np.unique(data.feeds[name], return_counts=True)
    return Counter(dict(zip(tokens.tolist(), counts.tolist(), strict=True)))


def read_token_file(path: Path, tokenizer: TokenizerFile, content: bytes) -> Counter[int]:
    """Count the tokens of a file of texts, or those that a file lists, one on a line.

    Raises:
        DataError: It lists a token that the tokenizer does not have, or cannot be read.
        FileError: There is no such file.
    """
    if path.suffix in _TABLES:
        counts: Counter[int] = Counter()
        for ids in encode_texts(read_texts(path), content):
            counts.update(ids)
        return counts
    try:
        tokens = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the tokens to keep from {path}: {error}") from error
    wanted = [token.rstrip("\r") for token in tokens if token.strip()]
    missing = [token for token in wanted if token not in tokenizer.ids]
    if missing:
        raise DataError(
            f"{path} lists {missing[0]!r}, which is no token of the tokenizer"
            + (f" ({len(missing)} like it)" if len(missing) > 1 else "")
        )
    # A token that is asked for by name is kept whatever the count.
    return Counter({tokenizer.ids[token]: 1 << 30 for token in wanted})


def check_same_tokens(ctx: PassContext, kept: Sequence[int], trimmed: bytes) -> None:
    """Check on the calibration texts that those with kept tokens alone get the same tokens.

    Raises:
        UnsupportedError: The trimmed tokenizer cuts a text differently.
    """
    old = ctx.companion("tokenizer.json")
    data = ctx.calibration
    if data is None or data.texts is None or old is None:
        return
    texts = data.texts.rows[:_CHECKED]
    number = {before: after for after, before in enumerate(kept)}
    pairs = zip(texts, encode_texts(texts, old), encode_texts(texts, trimmed), strict=True)
    for text, before, after in pairs:
        if all(token in number for token in before) and [number[t] for t in before] != after:
            raise UnsupportedError(
                f"the trimmed tokenizer cuts {text[0][:60]!r} differently, which its type should "
                "not allow; use mode=remap"
            )
