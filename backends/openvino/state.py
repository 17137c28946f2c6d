"""The cache of a stateful model: as arrays, and as a text that goes on where it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irtools.backends.openvino.library import clean_message, import_openvino
from irtools.backends.openvino.stateful import CacheVariable
from irtools.errors import DataError
from irtools.targets import Feeds

if TYPE_CHECKING:
    from irtools.analysis.decoder import CachedDecoder

__all__ = ["Cache", "StatefulText"]


class Cache:
    """Variables of a model by the inputs and outputs that they stand for.

    Args:
        variables: All of them.
    """

    def __init__(self, variables: Sequence[CacheVariable]) -> None:
        self._by_variable = {variable.variable: variable for variable in variables}

    def is_fed(self, feeds: Feeds) -> bool:
        """Whether feeds hold a cache that is not empty."""
        return any(feeds[variable.name].size for variable in self._by_variable.values())

    def is_wanted(self, wanted: Collection[str]) -> bool:
        """Whether some of it is to be returned."""
        return any(variable.present in wanted for variable in self._by_variable.values())

    def restore(self, request: Any, feeds: Feeds) -> None:
        """Put a cache that is fed, [B, heads, P, size] each, where attention reads it."""
        known = self._by_variable
        if not self.is_fed(feeds):
            request.reset_state()
            return
        tensor = import_openvino().Tensor
        for state in request.query_state():
            state.state = tensor(feeds[known[state.name].name])

    def presents(self, request: Any, wanted: Collection[str]) -> Mapping[str, np.ndarray]:
        """Return what the variables hold now, of those outputs that are wanted."""
        named = {self._by_variable[s.name].present: s for s in request.query_state()}
        return {name: np.array(named[name].state.data) for name in wanted if name in named}


class StatefulText:
    """A text whose keys and values never leave the runtime.

    Args:
        request: An inference request of its own: variables belong to requests.
        cache: The model's variables.
        fed: Returns what the compiled model is fed.
        decoder: Inputs and outputs of the stateless model.
        past: The cache to begin after.
    """

    def __init__(
        self,
        request: Any,
        cache: Cache,
        fed: Callable[[Feeds], dict[int, np.ndarray]],
        decoder: CachedDecoder,
        past: Feeds,
    ) -> None:
        self._request = request
        self._fed = fed
        self._decoder = decoder
        cache.restore(request, past)
        self.length = next(iter(past.values())).shape[2]

    @property
    def cache_bytes(self) -> int | None:
        """Nothing: variables show themselves as float32, however they are kept."""
        return None

    def read(self, ids: np.ndarray) -> np.ndarray:
        """Read new tokens; see `irtools.targets.TextState.read`."""
        feeds = self._fed(self._decoder.token_feeds(ids, self.length))
        try:
            found = self._request.infer(feeds, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise DataError(f"OpenVINO cannot read on: {clean_message(error)}") from error
        self.length += ids.shape[1]
        return np.array(found[self._decoder.logits])
