"""Texts whose cache stays in one buffer per tensor, which attention reads and writes in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from irtools.backends.onnxruntime.session import RUNTIME_ERRORS, clean_message, ort
from irtools.errors import DataError
from irtools.targets import Feeds

if TYPE_CHECKING:
    from irtools.analysis.decoder import CachedDecoder

__all__ = ["BoundText"]

_FAILURES: tuple[type[Exception], ...] = (RuntimeError, *RUNTIME_ERRORS)
"""Runs on bound buffers raise a plain RuntimeError."""
_ROOM = 256
"""Tokens for which there is room at first, and more each time that it runs out."""
_GROWTH = 4
"""The room grows by one part in so many, too, so that copies stay rare in long texts."""


class BoundText:
    """A text of a model whose caches may be bound to one buffer each.

    Args:
        session: `onnxruntime.InferenceSession`.
        decoder: Its inputs and outputs.
        past: The cache to begin after, as its buffers hold it, by input name: floats
            [B, heads, P, size], or their codes.
        fixed: `OrtValue` of further inputs, the same at every step: those of an adapter.
    """

    def __init__(
        self, session: Any, decoder: CachedDecoder, past: Feeds, fixed: Mapping[str, Any]
    ) -> None:
        self._session = session
        self._fixed = fixed
        self._decoder = decoder
        self.length = decoder.length(past)
        self._arrays: Mapping[str, np.ndarray] = dict(past)
        self._capacity = 0
        self._binding = session.io_binding()

    @property
    def cache_bytes(self) -> int | None:
        """Memory of the buffers, with the room in them."""
        return sum(array.nbytes for array in self._arrays.values())

    def read(self, ids: np.ndarray) -> np.ndarray:
        """Read new tokens; see `irtools.targets.TextState.read`.

        After a cache the kernel takes several tokens of one text, or one of each of several.
        """
        rows, new = ids.shape
        if self.length and rows > 1 and new > 1:
            return np.concatenate([self._step(column) for column in np.split(ids, new, 1)], axis=1)
        return self._step(ids)

    def _step(self, ids: np.ndarray) -> np.ndarray:
        end = self.length + ids.shape[1]
        if end > self._capacity:
            self._make_room(end)
        for name, array in self._decoder.token_feeds(ids, self.length).items():
            self._binding.bind_cpu_input(name, np.ascontiguousarray(array))
        self._binding.bind_output(self._decoder.logits)
        try:
            self._session.run_with_iobinding(self._binding)
        except _FAILURES as error:
            raise DataError(
                f"ONNX Runtime cannot read on after {self.length} tokens: {clean_message(error)}"
            ) from error
        self.length = end
        outputs = self._binding.get_outputs()
        logits: np.ndarray = outputs[len(self._decoder.past)].numpy()
        return logits

    def _make_room(self, least: int) -> None:
        """Move the cache into longer buffers, and bind those."""
        self._capacity = least + max(_ROOM, least // _GROWTH)
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        for name, value in self._fixed.items():
            self._binding.bind_ortvalue_input(name, value)
        moved = {}
        for cache in self._decoder.past:
            old = self._arrays[cache.name]
            array = np.zeros((*old.shape[:2], self._capacity, old.shape[3]), old.dtype)
            array[:, :, : self.length] = old[:, :, : self.length]
            moved[cache.name] = array
            # The value is a view: the array lives as long as the text.
            buffer = ort.OrtValue.ortvalue_from_numpy(array)
            self._binding.bind_ortvalue_input(cache.name, buffer)
            self._binding.bind_ortvalue_output(cache.present, buffer)
        self._arrays = moved
