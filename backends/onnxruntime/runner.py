"""Running a model in ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from irtools.analysis.decoder import decoder_of
from irtools.backends.onnxruntime.adapters import read_adapter
from irtools.backends.onnxruntime.bound_text import BoundText
from irtools.backends.onnxruntime.coded_cache import SHARED_CACHE, CodedCache, coded_caches
from irtools.backends.onnxruntime.kernels import count_kernels, count_providers
from irtools.backends.onnxruntime.session import (
    RUNTIME_ERRORS,
    Provider,
    SaveAs,
    clean_message,
    open_session,
)
from irtools.backends.onnxruntime.source import ModelSource
from irtools.errors import UnsupportedError
from irtools.files import scratch_folder
from irtools.targets import (
    FedText,
    Feeds,
    InputSlot,
    KernelReport,
    RunnerOptions,
    SessionRunner,
    TextState,
)

if TYPE_CHECKING:
    from irtools.analysis.decoder import CachedDecoder

__all__ = ["OrtRunner", "as_array", "compiled_kernels"]

_NUMPY_TYPES = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "string": np.dtype(object),
    "bool": np.dtype(np.bool_),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8e5m2": np.dtype(ml_dtypes.float8_e5m2),
    **{
        f"{sign}int{bits}": np.dtype(f"{sign}int{bits}")
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}
_UNREADABLE = frozenset(
    f"tensor({name})" for name in ("bfloat16", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz")
)
"""Types of outputs for which the runtime's Python interface has no array."""
_DENSE = re.compile(r"tensor\((\w+)\)")


class OrtRunner(SessionRunner):
    """A session with checked feeds.

    Caches that hold codes are fed and returned as the float numbers that they stand for, by
    copying; a text that is continued by `begin_text` leaves them where they are.

    Args:
        source: The model.
        options: How to run it.
        providers: Where, in order of preference.
        profile: Write the times of nodes to a file whose name starts so.

    Raises:
        UnsupportedError: The runtime refuses the model.
    """

    runtime = "ONNX Runtime"
    failures = RUNTIME_ERRORS

    def __init__(
        self,
        source: ModelSource,
        options: RunnerOptions,
        providers: Sequence[Provider],
        profile: Path | None = None,
    ) -> None:
        self._source = source
        self._options = options
        self._providers = tuple(providers)
        session = open_session(source, options, providers, profile=profile)
        self._adapter: Mapping[str, Any] = {}
        self._adapters: dict[tuple[Path, int], Mapping[str, Any]] = {}
        self._output_types = {o.name: o.type for o in session.get_outputs()}
        self._metadata = session.get_modelmeta().custom_metadata_map
        self._coded = coded_caches(self._metadata)
        self._presents = {cache.present: cache for cache in self._coded.values()}
        slots = [_as_float(slot, self._coded.get(slot.name)) for slot in _slots(session)]
        super().__init__(session, slots, tuple(self._output_types))

    @property
    def providers(self) -> Sequence[str]:
        """Execution providers that take part."""
        return tuple(self.session.get_providers())

    def infer(self, feeds: Mapping[str, np.ndarray], wanted: Sequence[str]) -> Sequence[np.ndarray]:
        self._refuse_unreadable(wanted)
        coded, presents = self._coded, self._presents
        fed = {name: value.numpy() for name, value in self._adapter.items()}
        fed |= {n: coded[n].encode(array) if n in coded else array for n, array in feeds.items()}
        if SHARED_CACHE in self._metadata and _reads_on_together(feeds):
            found = self._by_text(fed, wanted)
        else:
            found = [as_array(output) for output in self.session.run(list(wanted), fed)]
        return [
            presents[name].decode(array) if name in presents else array
            for name, array in zip(wanted, found, strict=True)
        ]

    def _by_text(self, fed: Feeds, wanted: Sequence[str]) -> list[np.ndarray]:
        """Run text by text, and put the outputs of all together."""
        by_text = {slot.name for slot in self.slots if slot.required}
        rows = range(max(len(array) for name, array in fed.items() if name in by_text))
        parts = [
            {n: array[row : row + 1] if n in by_text else array for n, array in fed.items()}
            for row in rows
        ]
        found = [self.session.run(list(wanted), part) for part in parts]
        return [np.concatenate(outputs) for outputs in zip(*found, strict=True)]

    def use_adapter(self, path: Path | None) -> None:
        """Use an adapter from now on; see `irtools.targets.SwitchesAdapters`.

        Those that were used are kept, so that switching back reads nothing.
        """
        self._adapter = {} if path is None else self._read(path)

    def _read(self, path: Path) -> Mapping[str, Any]:
        # A file with another date may hold another adapter.
        key = (path, path.stat().st_mtime_ns if path.is_file() else 0)
        if key not in self._adapters:
            self._adapters[key] = read_adapter(path, self.slots)
        return self._adapters[key]

    def begin_text(self, decoder: CachedDecoder, past: Feeds) -> TextState:
        """Begin a text after a cache; see `irtools.targets.begin_text`."""
        if SHARED_CACHE in self._metadata:
            held = {n: self._coded[n].encode(a) if n in self._coded else a for n, a in past.items()}
            return BoundText(self.session, decoder, held, self._adapter)
        return FedText(self, decoder, past)

    def describe(self, error: Exception) -> str:
        return clean_message(error)

    def kernels(self) -> KernelReport:
        """Compile once more and count; the session itself does not report it."""
        return compiled_kernels(self._source, self._options, self._providers)

    def end_profiling(self) -> Path:
        """Write the profile that the runner was made with, and return its file."""
        return Path(self.session.end_profiling())

    def close(self) -> None:
        """Free the session and its weights."""
        super().close()
        self._adapter = {}
        self._adapters.clear()
        self._source = ModelSource(b"")

    def _refuse_unreadable(self, wanted: Sequence[str]) -> None:
        for name in wanted:
            kind = self._output_types[name]
            if kind in _UNREADABLE or kind.startswith("sparse_tensor("):
                raise UnsupportedError(
                    f"output {name!r} is a {kind}, which ONNX Runtime does not hand to Python as "
                    "an array: cast or stack it in the model"
                )


def _reads_on_together(feeds: Feeds) -> bool:
    """Whether several texts read several tokens each after a cache.

    The kernel takes several tokens of one text then, or one token of each of several.
    """
    decoder = decoder_of(feeds)
    if decoder is None or not feeds[decoder.past[0].name].shape[2]:
        return False
    rows, new = feeds[decoder.ids].shape
    return bool(rows > 1 and new > 1)


def as_array(found: Any) -> np.ndarray:
    """Return an output as one array, whatever it is.

    A map gives its values, a sequence of maps a row for each (the classes of ZipMap), a sequence of
    tensors all their elements in one row, an optional that holds nothing no element.
    """
    match found:
        case np.ndarray():
            return found
        case dict():
            return np.array(list(found.values()))
        case [dict(), *_]:
            return np.array([list(row.values()) for row in found])
        case [*parts]:
            return np.concatenate([np.ravel(as_array(part)) for part in parts] or [np.zeros(0)])
        case None:
            return np.zeros(0)
        case _:
            return np.asarray(found)


def compiled_kernels(
    source: ModelSource, options: RunnerOptions, providers: Sequence[Provider]
) -> KernelReport:
    """Compile a model, write the graph that came out to a temporary folder, and count."""
    with scratch_folder("kernels") as folder:
        path = folder / "optimized.onnx"
        session = open_session(source, options, providers, SaveAs(path, external_data=True))
        return replace(count_kernels(path), providers=count_providers(session))


def _slots(session: Any) -> tuple[InputSlot, ...]:
    required = [_slot(arg, required=True) for arg in session.get_inputs()]
    optional = [_slot(arg, required=False) for arg in session.get_overridable_initializers()]
    return (*required, *optional)


def _as_float(slot: InputSlot, cache: CodedCache | None) -> InputSlot:
    """Return the slot of the numbers that a cache of codes stands for."""
    if cache is None or slot.shape is None:
        return slot
    shape = (*slot.shape[:-1], cache.scale.shape[1])
    return replace(slot, dtype=np.dtype(np.float32), shape=shape)


def _slot(arg: Any, *, required: bool) -> InputSlot:
    dense = _DENSE.fullmatch(arg.type)
    if dense is None:
        return InputSlot(
            arg.name, None, None, required=required and not arg.type.startswith("optional")
        )
    sizes = tuple(size if isinstance(size, int) else None for size in arg.shape)
    # The runtime says [] of a number and of a tensor whose rank is not stated; it checks both.
    return InputSlot(arg.name, _NUMPY_TYPES.get(dense[1]), sizes or None, required)
