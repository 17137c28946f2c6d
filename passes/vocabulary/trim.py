"""The pass `trim-vocabulary`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irtools.errors import OptionError, UnsupportedError
from irtools.passes.vocabulary.files import renumbered_files
from irtools.passes.vocabulary.table import (
    Refusal,
    TokenTable,
    find_table,
    gives_tokens,
    keep_rows,
    put_map,
)
from irtools.passes.vocabulary.tokenizer import TokenizerFile
from irtools.passes.vocabulary.usage import check_same_tokens, count_tokens, read_token_file
from irtools.passmanager import FOUND_WEIGHTS, Exactness, Pass, PassContext, PassResult, option

__all__ = ["TrimVocabulary"]

_RENUMBERED = ("config.json", "tokenizer_config.json", "vocab.txt")


@dataclass(frozen=True)
class TrimVocabulary(Pass):
    """Keep the embedding rows of tokens that are used, and write the tokenizer to match.

    Kept are the tokens of the calibration data (or of `keep`) and what the tokenizer falls back
    to for any other text: its marks, bytes, and single characters alone and inside words. A text
    whose tokens are all kept is tokenized as before, any other in shorter pieces. For models that
    serve one task or language: half of a small encoder are rows that its texts never touch.

    With `tokenizer`, tokens get new numbers, and `tokenizer.json`, `tokenizer_config.json`,
    `vocab.txt` and `config.json` beside the written model are the matching ones. Text given as
    data is tokenized anew for the measurements that follow. With `remap`, the tokenizer stays:
    the model itself looks up the new number of each token, and tokens that are gone count as
    unknown.

    Needs `tokenizer.json` (WordPiece, BPE, Unigram or WordLevel) beside the model, or beside the
    data. Left alone and counted: models without a constant table behind their token ids, and tied
    embeddings, whose rows are also what the model puts out.
    """

    name: ClassVar[str] = "trim-vocabulary"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    requires: ClassVar[tuple[str, ...]] = FOUND_WEIGHTS
    counters: ClassVar[dict[str, str]] = {
        "num-removed-tokens": "tokens removed",
        "num-skipped-no-table": "models in which no input indexes a constant table",
        "num-skipped-tied": "tables left alone because somebody else reads them",
        "num-skipped-subgraph": "tables left alone because they are read inside a subgraph",
        "num-skipped-no-tokenizer": "tables left alone because there is no tokenizer.json",
        "num-skipped-no-data": "tables left alone because nothing says which tokens are used",
        "num-skipped-complete": "tables of which every row is needed",
    }

    mode: Literal["auto", "tokenizer", "remap"] = option(
        "auto",
        "tokenizer: new numbers and a new tokenizer; remap: old numbers, one more lookup; auto: "
        "tokenizer where all data is text, else remap",
    )
    keep: str = option(
        "",
        "instead of the tokens of the calibration data: a number N for the N most frequent of "
        "them, or a file: texts (.jsonl, .csv, .tsv), or a token on each line",
    )
    min_count: int = option(1, "keep tokens that occur so often or more")
    characters: Literal["all", "used"] = option(
        "all", "single characters to keep: all, or those of the kept tokens and ASCII"
    )

    def __post_init__(self) -> None:
        if self.min_count < 1:
            raise OptionError(f"min-count is {self.min_count}, expected 1 or more")
        if self.keep.isdecimal() and int(self.keep) < 1:
            raise OptionError("keep is 0, expected a number of tokens or a file")

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        table = find_table(model)
        if isinstance(table, Refusal):
            return _left_alone(table)
        content = ctx.companion("tokenizer.json")
        if content is None:
            return _left_alone(
                Refusal(
                    "num-skipped-no-tokenizer",
                    "there is no tokenizer.json beside the model to tell which tokens any text "
                    "may need",
                )
            )
        tokenizer = TokenizerFile.parse(content)
        used = self._used(tokenizer, content, table, ctx)
        if used is None:
            return _left_alone(
                Refusal("num-skipped-no-data", "give calibration data, or a file as keep=")
            )
        kept = self._kept(tokenizer, used, table.rows)
        if len(kept) == table.rows:
            return _left_alone(Refusal("num-skipped-complete", "every row is needed"))
        return self._trim(model, table, tokenizer, kept, ctx)

    def _used(
        self, tokenizer: TokenizerFile, content: bytes, table: TokenTable, ctx: PassContext
    ) -> set[int] | None:
        """Return the tokens to keep for the sake of the data; None where there is none."""
        if self.keep and not self.keep.isdecimal():
            counts = read_token_file(Path(self.keep), tokenizer, content)
        elif ctx.calibration is None:
            return None
        else:
            counts = count_tokens(ctx.calibration, table.ids.name or "")
        often = [token for token, count in counts.most_common() if count >= self.min_count]
        return set(often[: int(self.keep)] if self.keep.isdecimal() else often)

    def _kept(self, tokenizer: TokenizerFile, used: Collection[int], rows: int) -> list[int]:
        ascii_too = {chr(code) for code in range(33, 127)}
        characters = tokenizer.characters(used) | ascii_too if self.characters == "used" else None
        closed = tokenizer.close({*used, *tokenizer.essential(characters)})
        return sorted(token for token in closed if token < rows)

    def _trim(
        self,
        model: ir.Model,
        table: TokenTable,
        tokenizer: TokenizerFile,
        kept: list[int],
        ctx: PassContext,
    ) -> PassResult:
        blocker = _blocks_renumbering(model, table, tokenizer, kept, ctx)
        if self.mode == "tokenizer" and blocker:
            raise UnsupportedError(f"mode=tokenizer: {blocker}; use mode=remap")
        if self.mode == "remap" or blocker:
            why = f", because {blocker}" if blocker and self.mode == "auto" else ""
            return _remapped(model, table, tokenizer, kept, why)
        others = {name: ctx.companion(name) for name in _RENUMBERED}
        present = {name: found for name, found in others.items() if found is not None}
        files = renumbered_files(tokenizer, kept, present)
        check_same_tokens(ctx, kept, files["tokenizer.json"])
        keep_rows(table, np.array(kept))
        note = f"the model now goes with the {', '.join(files)} written beside it"
        return _result(table, kept, note, files)


def _remapped(
    model: ir.Model, table: TokenTable, tokenizer: TokenizerFile, kept: list[int], why: str
) -> PassResult:
    unknown = tokenizer.unknown
    if unknown is None:
        raise UnsupportedError(
            "the tokenizer has no token for what is unknown, which tokens that are gone would "
            f"have to become{why}; give data as text, so that mode=tokenizer is possible"
        )
    numbers = np.full(table.rows, kept.index(unknown), np.int32)
    numbers[kept] = np.arange(len(kept), dtype=np.int32)
    keep_rows(table, np.array(kept))
    put_map(model, table, numbers)
    return _result(table, kept, f"the tokenizer stays, the model maps its tokens{why}")


def _blocks_renumbering(
    model: ir.Model,
    table: TokenTable,
    tokenizer: TokenizerFile,
    kept: list[int],
    ctx: PassContext,
) -> str:
    """Return why tokens cannot get new numbers, or ''."""
    for data in (ctx.calibration, ctx.evaluation):
        if data is not None and data.texts is None:
            return f"{data.source} holds tokens, not text, in the numbers of the old tokenizer"
    if ctx.calibration is None and ctx.evaluation is None:
        return "without data as text the result cannot be compared with the original"
    if table.reads_values and not _keeps_marks(tokenizer, table, kept, ctx):
        return "the model computes with the numbers of tokens that would change"
    if gives_tokens(model, table.ids):
        return "the model puts out something for each token, and texts may get other tokens"
    return ""


def _keeps_marks(
    tokenizer: TokenizerFile, table: TokenTable, kept: list[int], ctx: PassContext
) -> bool:
    """Whether padding and the other marks that occur in data keep their numbers."""
    if ctx.calibration is None:
        return False
    found = count_tokens(ctx.calibration, table.ids.name or "")
    return all(kept.index(mark) == mark for mark in tokenizer.marks if mark in found)


def _left_alone(refusal: Refusal) -> PassResult:
    return PassResult(False, {refusal.counter: 1}, (f"left alone: {refusal.reason}",))


def _result(
    table: TokenTable,
    kept: list[int],
    note: str,
    files: dict[str, bytes] | None = None,
) -> PassResult:
    counts = {"num-removed-tokens": table.rows - len(kept)}
    notes = (f"{len(kept)} of {table.rows} tokens are kept; {note}",)
    return PassResult(True, counts, notes, companions=files or {})
