"""Where the models of a run are on disk while it runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from irtools.files import scratch_folder

if TYPE_CHECKING:
    from irtools.model import Model, SavedModel, WeightStore

__all__ = ["Workspace"]


_SHARED_ABOVE = 16 << 20
"""Bytes of weights above which models that are only run share the file of their weights."""


class Workspace:
    """A private temporary folder in which each model is written once, for all who run it.

    Each weight of large models is written once, however many models have it.

    Args:
        deploy: Puts a model into its target's form, as it is saved.
    """

    def __init__(self, deploy: Callable[[Model], Model] | None = None) -> None:
        self._deploy = deploy
        self._deployed: WeakKeyDictionary[Model, Model] = WeakKeyDictionary()
        self._stack = ExitStack()
        self._saved: WeakKeyDictionary[Model, SavedModel] = WeakKeyDictionary()
        self._run: WeakKeyDictionary[Model, Path] = WeakKeyDictionary()
        self._numbers = count()
        self._root: Path | None = None
        self._large: Path | None = None
        self._store: WeightStore | None = None

    def __enter__(self) -> Workspace:
        self._root = self._stack.enter_context(scratch_folder("run"))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def folder(self, name: str) -> Path:
        """Make and return a folder of its own."""
        assert self._root is not None, "the workspace is closed"
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._root))

    def deployed(self, model: Model) -> Model:
        """Return a model in its target's form, as saved; made once."""
        found = self._deployed.get(model)
        if found is None:
            found = self._deploy(model) if self._deploy is not None else model
            self._deployed[model] = found
        return found

    def path(self, model: Model) -> Path:
        """Return a file with the model as it is, to be run. It must not change afterwards."""
        found = self._run.get(model)
        if found is None:
            if model.weight_bytes <= _SHARED_ABOVE:
                return self.timed_path(model)
            found = self._run[model] = self._save_shared(model).files[0]
        return found

    def timed_path(self, model: Model) -> Path:
        """Return a file with the model as it is saved by itself.

        How long it takes to load, and in how much memory, depends on where the weights are.
        """
        from irtools.model import EXTERNAL_ABOVE

        if model.weight_bytes > EXTERNAL_ABOVE:
            return self.path(model)
        found = self._saved.get(model)
        if found is None:
            folder = self.folder("model")
            found = self._saved[model] = model.save(folder / "model.onnx", scratch=True)
        return found.files[0]

    def spill_weights(self, model: Model) -> None:
        """Move a large model's weights to disk and map them.

        A pass that changes gigabytes leaves them in memory, where a runtime copies them once more.
        A disk without room for them is not an error.
        """
        from irtools.errors import FileError
        from irtools.model import EXTERNAL_ABOVE, place_of
        from irtools.model import Model as Read

        if model.weight_bytes <= EXTERNAL_ABOVE or _bytes_in_memory(model) <= EXTERNAL_ABOVE // 3:
            return
        try:
            saved = Read.load(self.path(model)).ir.graph.initializers
        except FileError:
            return
        held = {name: value.const_value for name, value in model.ir.graph.initializers.items()}
        mapped = {
            id(tensor): saved[name].const_value
            for name, tensor in held.items()
            if name in saved and (kept := saved[name].const_value) is not None and place_of(kept)
        }
        for form in (model, self._deployed.get(model, model)):
            for value in form.ir.graph.initializers.values():
                value.const_value = mapped.get(id(value.const_value), value.const_value)

    def size(self, model: Model) -> int:
        """Bytes that the model takes on disk, external data included."""
        from irtools.model import planned_size

        saved = self._saved.get(model)
        return planned_size(model.ir) if saved is None else saved.size

    def _save_shared(self, model: Model) -> SavedModel:
        from irtools.model import EXTERNAL_ABOVE, WeightStore

        if self._large is None or self._store is None:
            self._large, self._store = self.folder("weights"), WeightStore()
        path = self._large / f"{next(self._numbers)}.onnx"
        saved = model.save(path, external_data=True, store=self._store, scratch=True)
        if model.weight_bytes > EXTERNAL_ABOVE:
            self._saved[model] = saved
        return saved


def _bytes_in_memory(model: Model) -> int:
    from irtools.model import place_of, tensor_size

    tensors = (value.const_value for value in model.ir.graph.initializers.values())
    return sum(tensor_size(t) for t in tensors if t is not None and place_of(t) is None)
