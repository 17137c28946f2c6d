"""The owner of an ONNX model: the only way in and out of a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from irtools.model.digest import tensor_size
from irtools.model.files import MappedFile
from irtools.model.interface import Interface
from irtools.model.operators import STANDARD_DOMAINS
from irtools.model.printer import print_model
from irtools.model.reader import read_file, read_proto
from irtools.model.verifier import verify
from irtools.model.walk import attribute_tensors, iter_graphs, iter_nodes
from irtools.model.writer import SavedModel, WeightStore, to_proto, write_model

__all__ = ["Model", "SavedModel"]


class Model:
    """A model and where it came from.

    Attributes:
        ir: The model as onnx_ir holds it. Tensors in it are shared between clones and never
            written into.
        source: File or checkpoint that it was read from, or None.
        companions: Files that a pass has put in the place of those next to the source, by name
            (`tokenizer.json`); written next to the model.
        notes: What its user should know of how it was made of its source.
    """

    def __init__(
        self, model: ir.Model, source: Path | None = None, files: tuple[MappedFile, ...] = ()
    ) -> None:
        self.ir = model
        self.source = source
        self.companions: Mapping[str, bytes] = {}
        self.notes: tuple[str, ...] = ()
        self._files = files

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """Read an ONNX file after checking that it is safe and sound to read.

        Weights are mapped from their files, not copied.

        Raises:
            FileError: The file is not there or cannot be read.
            ModelError: It is not a sound model; says what is wrong, and where.
            LimitError: Something in it is too large to be believed.
            UnsupportedError: It is sound, but uses map or opaque types.
        """
        path = Path(path)
        read = read_file(path)
        made = cls(read.model, path, read.files)
        made.notes = read.notes
        return made

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto, source: Path | None = None) -> Model:
        """Take over a model held in memory as a protobuf message, after the same checks."""
        read = read_proto(proto, source)
        made = cls(read.model, source)
        made.notes = read.notes
        return made

    @classmethod
    def from_ir(cls, model: ir.Model, source: Path | None = None) -> Model:
        """Take over an `onnx_ir` model, after the verifier."""
        verify(model)
        return cls(model, source)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        external_data: bool | None = None,
        store: WeightStore | None = None,
        scratch: bool = False,
        compared: bool = False,
    ) -> SavedModel:
        """Write the model, atomically: the path holds the old file or the whole new one.

        The file is flushed to the disk and read back before it gets its name. No weight file is
        overwritten: where `<name>.data` is taken the weights go to `<name>.1.data`, and so on; a
        weight file that an earlier save wrote for the same path is removed at the end. Saving over
        the file that the model was read from is safe.

        Args:
            path: Where to; its folder must exist.
            external_data: Weights in a file of their own; None: above 1.5 GB.
            store: Of the folder; external weights that it has are referred to and not written.
            scratch: The folder goes with this process: the file is neither flushed to the disk
                nor read back.
            compared: What reads back is compared with the model, weights included.

        Raises:
            CheckError: What reads back is another model; nothing was changed.
            FileError: Something cannot be written; nothing was changed.
            LimitError: The model does not fit into one file.
            ModelError: A file that the weights are mapped from was changed meanwhile.
            VerificationError: The model is not sound.
        """
        verify(self.ir)
        return write_model(
            self.ir,
            Path(path),
            external_data,
            self._files,
            store,
            scratch=scratch,
            compared=compared,
        )

    def to_proto(self) -> onnx.ModelProto:
        """Return the model as a protobuf message with all weights inside."""
        return to_proto(self.ir)

    def clone(self) -> Model:
        """Return a copy whose graph can be changed; tensors are shared."""
        copy = Model(self.ir.clone(), self.source, self._files)
        copy.companions, copy.notes = self.companions, self.notes
        return copy

    def verify(self, *, interface: Interface | None = None) -> None:
        """Check that the model is sound: see `irtools.model.verifier`."""
        verify(self.ir, interface=interface)

    def text(self, *, types: bool = False) -> str:
        """Return the canonical text: the same if and only if the model is the same.

        Args:
            types: Print the types of inner values too.
        """
        return print_model(self.ir, types=types)

    def fingerprint(self) -> str:
        """Return the SHA-256 of structure and weights. Paths and file layout do not matter."""
        text = print_model(self.ir, digest_length=64)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def interface(self) -> Interface:
        """Inputs, outputs and metadata."""
        return Interface.of(self.ir)

    @property
    def opset(self) -> int:
        """Version of the standard operators; 0 where the model uses none."""
        return self.ir.graph.opset_imports.get("", 0)

    @property
    def num_parameters(self) -> int:
        """Elements of all weights, a tensor that is shared counted once."""
        return sum(tensor.size for tensor in self._weights())

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, a tensor that is shared counted once."""
        return sum(tensor_size(tensor) for tensor in self._weights())

    def unknown_ops(self) -> tuple[tuple[str, str], ...]:
        """Return (domain, operator) of nodes that no standard and no local function defines.

        Nothing can be verified of such nodes but their names and wiring.
        """
        found = {
            (node.domain, node.op_type)
            for node in iter_nodes(self.ir)
            if node.domain not in STANDARD_DOMAINS
            and node.domain != "com.microsoft"
            and node.op_identifier() not in self.ir.functions
        }
        return tuple(sorted(found))

    def _weights(self) -> list[ir.TensorProtocol]:
        found: dict[int, ir.TensorProtocol] = {}
        for graph in iter_graphs(self.ir):
            for value in graph.initializers.values():
                if value.const_value is not None:
                    found[id(value.const_value)] = value.const_value
            for node in graph:
                found.update((id(tensor), tensor) for tensor in attribute_tensors(node))
        return list(found.values())
