"""Running a model in OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irtools.backends.openvino.compiled import SUFFIX, CompiledRunner
from irtools.backends.openvino.kernels import count_kernels, quantized_ops
from irtools.backends.openvino.library import clean_message, import_openvino, release
from irtools.backends.openvino.padding_choice import form_of_padding
from irtools.backends.openvino.session import CACHE_PRECISION, compiled_by, plugin_config, slot_of
from irtools.backends.openvino.source import import_model
from irtools.backends.openvino.state import Cache, StatefulText
from irtools.backends.openvino.stateful import (
    BEAMS,
    CacheVariable,
    cache_precision,
    cache_variables,
    make_stateful,
)
from irtools.errors import UnsupportedError
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
    from irtools.model import Model

__all__ = ["OpenVinoRunner", "open_runner"]

_PRECISIONS_OF_CACHE = (CACHE_PRECISION, "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION")


def open_runner(
    model: Model | Path,
    options: RunnerOptions,
    device: str,
    *,
    counters: bool = False,
    stateful: bool = False,
) -> OpenVinoRunner | CompiledRunner:
    """Return what runs a model, or a file of it; arguments as `OpenVinoRunner` takes them.

    Raises:
        UnsupportedError: OpenVINO refuses the model.
    """
    if isinstance(model, Path) and model.suffix == SUFFIX:
        return CompiledRunner(model, options, device, counters=counters)
    return OpenVinoRunner(model, options, device, counters=counters, stateful=stateful)


class OpenVinoRunner(SessionRunner):
    """A compiled model with checked feeds.

    Args:
        model: The model, as it is.
        options: How to run it.
        device: `CPU` or `GPU`.
        counters: Count the time of every node; of a model with a branch for one text without
            padding, those of the other branch.
        stateful: Keep the cache of a decoder inside. It is fed and returned all the same, by
            copying; a text that is continued by `begin_text` leaves it where it is. One of 4 bits
            cannot be copied: runs that feed or return it have one of 8, and texts begin empty.

    Raises:
        UnsupportedError: OpenVINO refuses the model.
    """

    runtime = "OpenVINO"

    def __init__(
        self,
        model: Model | Path,
        options: RunnerOptions,
        device: str,
        *,
        counters: bool = False,
        stateful: bool = False,
    ) -> None:
        core = import_openvino().Core()
        imported = import_model(core, model)
        branches = any(op.get_type_name() == "If" for op in imported.model.get_ops())
        form = form_of_padding(model) if branches else None
        self._counted = None if form is None else partial(OpenVinoRunner, form, options, device)
        if counters and form is not None:
            imported = import_model(core, form)
        if stateful:
            imported = make_stateful(imported)
        self._declared = imported.declared
        self._quantized = quantized_ops(imported.model)
        config = plugin_config(options, device) | ({"PERF_COUNT": "YES"} if counters else {})
        coded = cache_precision(imported.model)
        if coded is not None:
            config.pop(CACHE_PRECISION, None)
        self._compile = partial(compiled_by, core, imported.model, device, config)
        # OpenVINO 2026.4 ends the process where variables of 4 bits are set, and reads them wrong.
        self._hides_cache = coded == "u4"
        self._arrays: Any = None
        compiled = self._compile()
        slots = [slot_of(port, imported.outputs) for port in compiled.inputs]
        self._ports = [slot.name for slot in slots]
        variables = cache_variables(imported.model)
        self._cache = Cache(variables) if variables else None
        outputs = (*imported.outputs, *(variable.present for variable in variables))
        taken = [slot for slot in slots if self._cache is None or slot.name != BEAMS]
        taken += [_cache_slot(variable) for variable in variables]
        super().__init__(compiled.create_infer_request(), taken, outputs)

    def infer(self, feeds: Mapping[str, np.ndarray], wanted: Sequence[str]) -> Sequence[np.ndarray]:
        session = self._request(feeds, wanted)
        try:
            if self._cache is not None:
                self._cache.restore(session, feeds)
            results = session.infer(self._fed(feeds), share_inputs=True, share_outputs=True)
        except RuntimeError:
            # OpenVINO 2026.4 keeps sizes of a failed run in the compiled model: the next one fails
            # as well, or gives outputs of other shapes.
            self._session, self._arrays = self._compile().create_infer_request(), None
            raise
        # Shared outputs live in the request and the next run writes over them.
        presents = {} if self._cache is None else self._cache.presents(session, wanted)
        return [
            presents[name] if name in presents else np.array(results[self._outputs.index(name)])
            for name in wanted
        ]

    def begin_text(self, decoder: CachedDecoder, past: Feeds) -> TextState:
        """Begin a text after a cache; see `irtools.targets.begin_text`."""
        if self._cache is None:
            return FedText(self, decoder, past)
        if self._hides_cache and decoder.length(past):
            raise UnsupportedError(
                f"OpenVINO {release()} takes up no cache of 4 bits from arrays: begin with an "
                "empty one and read the text"
            )
        request = self.session.get_compiled_model().create_infer_request()
        return StatefulText(request, self._cache, self._fed, decoder, past)

    def _request(self, feeds: Feeds, wanted: Sequence[str]) -> Any:
        """Return what a run goes through: with 8 bits where those of the cache stay inside."""
        session = self.session
        if self._cache is None or not self._hides_cache:
            return session
        if not (self._cache.is_fed(feeds) or self._cache.is_wanted(wanted)):
            return session
        if self._arrays is None:
            wide = dict.fromkeys(_PRECISIONS_OF_CACHE, "u8")
            self._arrays = self._compile(wide).create_infer_request()
        return self._arrays

    def _fed(self, feeds: Feeds) -> dict[int, np.ndarray]:
        """Return what the compiled model is fed, by the number of its input."""
        if self._cache is None:
            return dict(enumerate(feeds.values()))
        rows = next(len(array) for name, array in feeds.items() if name in self._ports)
        fed = {BEAMS: np.arange(rows, dtype=np.int32), **feeds}
        return {number: fed[name] for number, name in enumerate(self._ports)}

    def known(self, feeds: Feeds) -> Feeds:
        """Leave out feeds of inputs that no node reads, and find those that were renamed."""
        known = self.input_names
        if all(name in known for name in feeds):
            return feeds
        declared = self._declared()
        places = declared.imported_as([{name} for name in known])
        return {
            known[places[name]] if name in places else name: array
            for name, array in feeds.items()
            if name in known or name not in declared.unread
        }

    def describe(self, error: Exception) -> str:
        return clean_message(error)

    def kernels(self) -> KernelReport:
        """Count the layers of the runtime model by type and precision; those of padded texts."""
        if self._counted is not None:
            with self._counted() as runner:
                return runner.kernels()
        return count_kernels(self.session.get_compiled_model().get_runtime_model(), self._quantized)

    def counters(self) -> Sequence[Any]:
        """Return `openvino.ProfilingInfo` of every node in the last run."""
        found: Sequence[Any] = self.session.get_profiling_info()
        return found


def _cache_slot(variable: CacheVariable) -> InputSlot:
    shape = (None, variable.heads, None, variable.size)
    return InputSlot(variable.name, np.dtype(np.float32), shape)
