"""Where the models of a run lie on disk while it runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from irtools.files import scratch_folder

if TYPE_CHECKING:
    from irtools.model import Model, SavedModel, WeightStore

__all__ = ["Workspace"]


class Workspace:
    """A private temporary folder in which each model is written once, for all who run it.

    Of models with external data each weight is written once, however many models have it.

    Args:
        write_form: Makes the form of a model in which it is written in the end.
    """

    def __init__(self, write_form: Callable[[Model], Model] | None = None) -> None:
        self._write_form = write_form
        self._written: WeakKeyDictionary[Model, Model] = WeakKeyDictionary()
        self._stack = ExitStack()
        self._saved: WeakKeyDictionary[Model, SavedModel] = WeakKeyDictionary()
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

    def written(self, model: Model) -> Model:
        """Return the form in which a model is written in the end; made once."""
        found = self._written.get(model)
        if found is None:
            found = self._write_form(model) if self._write_form is not None else model
            self._written[model] = found
        return found

    def path(self, model: Model) -> Path:
        """Return a file with the model as it stands. It must not change afterwards."""
        return self._save(model).files[0]

    def settle(self, model: Model) -> None:
        """Let go of the memory of a large model's weights: from here on they are mapped.

        A pass that changes gigabytes leaves them in memory, where a runtime copies them once more.
        The disk that has no room for them is no error.
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
        for form in (model, self._written.get(model, model)):
            for value in form.ir.graph.initializers.values():
                value.const_value = mapped.get(id(value.const_value), value.const_value)

    def size(self, model: Model) -> int:
        """Bytes that the model takes on disk, external data included."""
        from irtools.model import planned_size

        saved = self._saved.get(model)
        return planned_size(model.ir) if saved is None else saved.size

    def _save(self, model: Model) -> SavedModel:
        from irtools.model import EXTERNAL_ABOVE

        found = self._saved.get(model)
        if found is None:
            folder = self.folder("model")
            if model.weight_bytes <= EXTERNAL_ABOVE:
                found = model.save(folder / "model.onnx", scratch=True)
            else:
                found = self._save_large(model, folder.name)
            self._saved[model] = found
        return found

    def _save_large(self, model: Model, name: str) -> SavedModel:
        from irtools.model import WeightStore

        if self._large is None or self._store is None:
            self._large, self._store = self.folder("weights"), WeightStore()
        path = self._large / f"{name}.onnx"
        return model.save(path, external_data=True, store=self._store, scratch=True)


def _bytes_in_memory(model: Model) -> int:
    from irtools.model import place_of, tensor_size

    tensors = (value.const_value for value in model.ir.graph.initializers.values())
    return sum(tensor_size(t) for t in tensors if t is not None and place_of(t) is None)
