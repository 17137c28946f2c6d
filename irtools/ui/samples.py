"""One sample through one model, in a child process: text, an image, or arrays."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irtools.analysis.decoder import TextDecoder, find_text_decoder
from irtools.data import find_class_names, input_encoder, read_image, required_inputs
from irtools.errors import DataError
from irtools.files import scratch_folder
from irtools.measure.contest import Contender, describe
from irtools.measure.stream import Channel
from irtools.model import Model
from irtools.targets import RunnerOptions, find_target
from irtools.ui.workers import contender

if TYPE_CHECKING:
    from irtools.targets import Runner

__all__ = ["try_sample"]

_TIMED_RUNS = 5
_SHOWN_CLASSES = 5
_SHOWN_VALUES = 4096
_MOST_CLASSES = 100_000
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def try_sample(channel: Channel, path: str, target: str, sample: Mapping[str, Any]) -> None:
    """Run one model on one sample, and emit what comes out.

    Emits for a decoder `token`, `text` and `ms` of every token, and last `tokens_per_second` and
    `first_ms`; for other models `ms` (median of five runs after the first), `first_ms`, and
    `outputs`.

    Args:
        channel: Of the server.
        path: The model.
        target: What runs it.
        sample: `kind` (`text`, `image`, `arrays`) with `text` and `pair`, `image` (bytes) or
            `arrays` (JSON text), and `new_tokens`.

    Raises:
        DataError: The sample does not fit the model.
        UnsupportedError: The runtime refuses the model.
    """
    found = contender(path, target)
    folder = Path(path).parent
    with scratch_folder("try") as scratch:
        model, file = _opened(found, scratch)
        decoder = find_text_decoder(model.ir) if sample["kind"] == "text" else None
        feeds = None if decoder else _feeds(model, folder, sample)
        with find_target(found.target).runner(file, RunnerOptions()) as runner:
            if decoder is not None:
                _write(channel, runner, decoder, folder, sample)
            else:
                assert feeds is not None
                _run(channel, runner, feeds, _class_names(model, folder))


def _opened(found: Contender, scratch: Path) -> tuple[Model, Path]:
    """Return the model, or its inputs alone where a runtime reads its file, and the file."""
    if isinstance(found.model, Path):
        return describe(found.model, found.target), found.model
    return found.model, found.model.save(scratch / "model.onnx").files[0]


def _feeds(model: Model, folder: Path, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    inputs = required_inputs(model)
    match sample["kind"]:
        case "text":
            row = tuple(text for text in (sample["text"], sample.get("pair", "")) if text)
            if not row:
                raise DataError("there is no text")
            made = input_encoder(inputs, _files(folder))([row])
        case "image":
            made = dict(read_image(sample["image"], inputs, folder).feeds)
        case _:
            made = _arrays(sample["arrays"])
    missing = [spec.name for spec in inputs if spec.name not in made]
    if missing:
        raise DataError(f"nothing is given for {', '.join(missing)}; the model takes {inputs[0]}")
    return {spec.name: np.asarray(made[spec.name]).astype(spec.dtype) for spec in inputs}


def _arrays(text: str) -> dict[str, np.ndarray]:
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return {str(name): np.array(value) for name, value in document.items()}
    except (ValueError, TypeError) as error:
        raise DataError(
            f'arrays are JSON such as {{"x": [[0.5, 1.5]]}}, one entry an input: {error}'
        ) from error


def _files(folder: Path) -> dict[str, bytes]:
    return {n: (folder / n).read_bytes() for n in _TOKENIZER if (folder / n).is_file()}


def _class_names(model: Model, folder: Path) -> dict[int, str]:
    return {number: name for name, number in find_class_names([folder]).items()}


def _run(
    channel: Channel, runner: Runner, feeds: dict[str, np.ndarray], names: Mapping[int, str]
) -> None:
    times = []
    for _ in range(_TIMED_RUNS + 1):
        start = time.perf_counter()
        outputs = runner.run(feeds)
        times.append(1e3 * (time.perf_counter() - start))
    channel.emit(
        {
            "ms": statistics.median(times[1:]),
            "first_ms": times[0],
            "outputs": [_output(name, array, names) for name, array in outputs.items()],
        }
    )


def _output(name: str, array: np.ndarray, names: Mapping[int, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
    if array.dtype.kind not in "fiub":
        return found | {"values": [str(one) for one in array.ravel()[:16]]}
    flat = array.ravel()[:_SHOWN_VALUES].astype(np.float64)
    found["values"] = [float(one) if np.isfinite(one) else None for one in flat]
    is_row = array.ndim == 2 and array.shape[0] == 1 and 1 < array.shape[1] <= _MOST_CLASSES
    if is_row and array.dtype.kind == "f" and (names or "logit" in name or "prob" in name):
        found["classes"] = _classes(array[0].astype(np.float64), names)
    return found


def _classes(scores: np.ndarray, names: Mapping[int, str]) -> list[dict[str, Any]]:
    is_share = scores.min() >= 0 and abs(scores.sum() - 1) < 1e-3
    shares = scores if is_share else _softmax(scores)
    order = np.argsort(-shares)[:_SHOWN_CLASSES]
    return [{"name": names.get(int(n), str(n)), "share": float(shares[n])} for n in order]


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def _write(
    channel: Channel,
    runner: Runner,
    decoder: TextDecoder,
    folder: Path,
    sample: Mapping[str, Any],
) -> None:
    """Write greedily, token by token, through the cache if there is one."""
    from tokenizers import Tokenizer

    if not (folder / _TOKENIZER[0]).is_file():
        raise DataError("a decoder needs a tokenizer.json next to it")
    tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER[0]))
    prompt = tokenizer.encode(sample["text"]).ids
    if not prompt:
        raise DataError("the text has no tokens")
    ids, past = np.array([prompt], np.int64), decoder.empty(1)
    written: list[int] = []
    start = time.perf_counter()
    first_ms = 0.0
    for _ in range(int(sample.get("new_tokens", 32))):
        feeds = decoder.feeds(ids, past)
        found = runner.run(feeds, decoder.outputs)
        token = int(found[decoder.logits][0, -1].argmax())
        past = decoder.next_past(feeds, found)
        ids = np.array([[token]], np.int64)
        written.append(token)
        now = 1e3 * (time.perf_counter() - start)
        first_ms = first_ms or now
        channel.emit({"token": token, "text": tokenizer.decode(written), "ms": now})
    seconds = max(time.perf_counter() - start, 1e-9)
    channel.emit({"first_ms": first_ms, "tokens_per_second": len(written) / seconds})
