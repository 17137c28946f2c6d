"""A client for servers that speak the KServe protocol: Triton, OpenVINO Model Server."""

from __future__ import annotations

import json
from string import Template

from irtools.builds.serving.base import Served
from irtools.data import InputSpec, set_up_tokenizer
from irtools.errors import UnsupportedError
from irtools.model import ValueInfo

__all__ = ["KSERVE_TYPES", "client_files", "numpy_inputs"]

KSERVE_TYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
"""Element types that have numbers in JSON, as the protocol calls them."""

_CLIENT = '''\
"""Asks $model at a server that speaks the KServe protocol v2 over HTTP.

It needs numpy$package: python client.py $example --url http://localhost:8000
"""

import argparse
import json
import urllib.request
from pathlib import Path

import numpy as np
$imports
MODEL = $name
INPUTS = $inputs
CLASSES = $classes
SCORES = $scores


def infer(url: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of one call, by name."""
    inputs = [
        {"name": name, "datatype": kind, "shape": feeds[name].shape, "data": feeds[name].tolist()}
        for name, (_, kind) in INPUTS.items()
    ]
    request = urllib.request.Request(
        f"{url}/v2/models/{MODEL}/infer",
        json.dumps({"inputs": inputs}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        outputs = json.load(answer)["outputs"]
    return {one["name"]: np.reshape(one["data"], one["shape"]) for one in outputs}

$reading

def show(outputs: dict[str, np.ndarray], count: int) -> None:
    """Print the class of each sample, or the shapes of what came."""
    if SCORES is None:
        print({name: list(array.shape) for name, array in outputs.items()})
        return
    for row in outputs[SCORES][:count]:
        best = int(row.argmax())
        name = CLASSES[best] if best < len(CLASSES) else str(best)
        print(f"{name} {row[best]:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=f"Ask {MODEL}.")
$argument
    parser.add_argument("--url", default="http://localhost:8000")
    given = parser.parse_args()
    feeds, count = read(given.data)
    show(infer(given.url, feeds), count)
'''
_TEXTS = '''
BATCH = $batch
"""Rows of every call; None: as many as there are texts."""


def read(texts: list[str]) -> tuple[dict[str, np.ndarray], int]:
    """Return the arrays for texts, and how many rows of the outputs are of them."""
    if BATCH is not None and len(texts) > BATCH:
        raise SystemExit(f"the model takes {BATCH} texts at a time, and {len(texts)} are given")
    # tokenizer.json is set up: it pads, and cuts to what the model takes.
    tokenizer = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))
    padded = texts + texts[-1:] * (0 if BATCH is None else BATCH - len(texts))
    rows = tokenizer.encode_batch(padded)
    mask = np.array([row.attention_mask for row in rows])
    made = {
        "input_ids": np.array([row.ids for row in rows]),
        "attention_mask": mask,
        "input_mask": mask,
        "token_type_ids": np.array([row.type_ids for row in rows]),
        "segment_ids": np.array([row.type_ids for row in rows]),
        "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0),
    }
    return {name: made[name].astype(kind) for name, (kind, _) in INPUTS.items()}, len(texts)
'''
_ARRAYS = '''

def read(file: str) -> tuple[dict[str, np.ndarray], int]:
    """Return the arrays of an .npz file, and the samples in it."""
    with np.load(file) as arrays:
        feeds = {name: arrays[name].astype(kind) for name, (kind, _) in INPUTS.items()}
    return feeds, len(next(iter(feeds.values())))
'''
_ARGUMENT = {
    True: '    parser.add_argument("data", metavar="TEXT", nargs="+")',
    False: '    parser.add_argument("data", metavar="FILE.npz", help="an array per input")',
}
_MADE_OF_TEXT = frozenset(
    ("input_ids", "attention_mask", "input_mask", "token_type_ids", "segment_ids", "position_ids")
)


def client_files(served: Served) -> dict[str, str]:
    """Return `client.py`, and the tokenizer set up as the model needs it where it takes text."""
    texts = bool(served.tokenizer) and {one.name for one in served.inputs} <= _MADE_OF_TEXT
    reading = Template(_TEXTS).substitute(batch=served.batch) if texts else _ARRAYS
    scores = served.scores
    words = {
        "model": served.model,
        "name": json.dumps(served.model),
        "package": " and tokenizers" if texts else "",
        "imports": "from tokenizers import Tokenizer\n" if texts else "",
        "example": '"a text"' if texts else "samples.npz",
        "inputs": json.dumps({one.name: (one.dtype, kserve_type(one)) for one in served.inputs}),
        "classes": json.dumps(served.classes),
        "scores": "None" if scores is None else json.dumps(scores.name),
        "reading": reading,
        "argument": _ARGUMENT[texts],
    }
    files = {"client.py": Template(_CLIENT).substitute(words)}
    if texts:
        files["tokenizer.json"] = set_up_tokenizer(numpy_inputs(served), served.tokenizer)
    return files


def kserve_type(value: ValueInfo) -> str:
    """Return the protocol's name of an element type.

    Raises:
        UnsupportedError: It has none, or none with numbers.
    """
    if value.dtype not in KSERVE_TYPES:
        raise UnsupportedError(
            f"{value.name} is of type {value.dtype or 'unknown'}, which the client cannot send; "
            f"expected one of {', '.join(KSERVE_TYPES)}"
        )
    return KSERVE_TYPES[value.dtype]


def numpy_inputs(served: Served) -> list[InputSpec]:
    """Return what the model takes, as data is read for it."""
    import numpy as np

    return [InputSpec(one.name, np.dtype(one.dtype), one.shape) for one in served.inputs]
