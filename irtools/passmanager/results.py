"""What passes made of models, kept between runs: another last pass does not repeat the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from irtools.editing import maker_of, note_maker
from irtools.errors import IrtoolsError
from irtools.files import Store, json_text
from irtools.model import Model, iter_graphs, iter_nodes, print_model
from irtools.passmanager.base import PassResult
from irtools.passmanager.plan import Plan
from irtools.passmanager.step import Step

__all__ = ["KeptResults"]

_KIND = "pass"
_MODEL, _RESULT, _COMPANIONS = "model.onnx", "result.json", "companions"
_LEAST_SECONDS = 2.0
"""Of a pass, below which reading its result takes about as long."""


class KeptResults:
    """Results of passes in a store.

    Args:
        store: Where they are kept.
        identity: What decides them besides the model, the pass and the data: target, runtime,
            machine, seed, code.
        least_seconds: Results of passes that take less are not kept; None: 2.
    """

    def __init__(
        self, store: Store, identity: Mapping[str, object], least_seconds: float | None = None
    ) -> None:
        self._store = store
        self._identity = {f"run {name}": value for name, value in identity.items()}
        self._least = _LEAST_SECONDS if least_seconds is None else least_seconds

    def get(self, key: str, step: Step) -> tuple[Model, PassResult] | None:
        """Return the model after a pass and what the pass answered; None: it must run.

        Args:
            key: As `key` gives it.
            step: The pass, and the model before it.
        """
        with self._store.open(_KIND, key) as entry:
            if entry is None:
                return None
            try:
                return _read(entry.folder, step)
            except (OSError, ValueError, KeyError, TypeError, IrtoolsError):
                return None

    def put(self, key: str, step: Step, seconds: float) -> None:
        """Keep what a pass has made.

        Args:
            key: As `key` gave it before the pass.
            step: The pass has just run, and nothing else has looked at the result.
            seconds: How long it took.
        """
        if seconds >= self._least and step.model.weight_bytes <= self._store.largest:
            self._store.put(_KIND, key, lambda folder: _write(folder, step), step.text)

    def key(self, step: Step) -> str:
        """Return the name of what decides the result of a pass that has not run yet."""
        ctx = step.ctx
        data = (ctx.calibration, ctx.evaluation)
        return Store.key(
            what="pass",
            text=step.text,
            model=_content(step.before),
            files=sorted((name, _hash(ctx.companion(name))) for name in ctx.source_files),
            companions=sorted((n, _hash(c)) for n, c in step.before.companions.items()),
            data=[None if one is None else one.with_digest().digest for one in data],
            seed=ctx.seed,
            threads=ctx.threads,
            **self._identity,
        )


def _content(model: Model) -> str:
    """Return a hash of all that a pass can see of a model: names of modules and types too."""
    digest = hashlib.sha256(print_model(model.ir, types=True, digest_length=64).encode())
    for line in _notes(model.ir):
        digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _notes(model: ir.Model) -> Iterator[str]:
    for node in iter_nodes(model):
        yield f"{node.name} {node.doc_string} {sorted(node.metadata_props.items())}\n"
        for value in node.outputs:
            yield f"{value.name} {sorted(value.metadata_props.items())}\n"
    for graph in iter_graphs(model):
        for value in (*graph.inputs, *graph.initializers.values()):
            yield f"{value.name} {sorted(value.metadata_props.items())}\n"
    yield f"{sorted(_makers(model).items())}"


def _makers(model: ir.Model) -> dict[str, str]:
    """Return what made the constants of a model, which no file says."""
    values = (value for graph in iter_graphs(model) for value in graph.initializers.values())
    return {value.name or "": maker for value in values if (maker := maker_of(value))}


def _write(folder: Path, step: Step) -> None:
    result = step.result
    document = {
        "modified": result.modified,
        "counters": dict(result.counters),
        "notes": list(result.notes),
        "plan": None if result.plan is None else result.plan.to_json(),
        "makers": _makers(step.model.ir),
        "calibrated": _has_calibrated(step),
    }
    if result.modified:
        step.model.save(folder / _MODEL, scratch=True)
    if result.companions:
        (folder / _COMPANIONS).mkdir()
        for name, content in result.companions.items():
            (folder / _COMPANIONS / name).write_bytes(content)
    (folder / _RESULT).write_text(json_text(document, any_number=True), encoding="utf-8")


def _read(folder: Path, step: Step) -> tuple[Model, PassResult]:
    document: dict[str, Any] = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
    place = folder / _COMPANIONS
    companions = {p.name: p.read_bytes() for p in place.iterdir()} if place.is_dir() else {}
    result = PassResult(
        modified=document["modified"],
        counters=document["counters"],
        notes=tuple(document["notes"]),
        plan=None if document["plan"] is None else Plan.from_json(document["plan"]),
        companions=companions,
    )
    if document["calibrated"] and step.ctx.calibrating is not None:
        step.ctx.calibrating.get(step.before.ir)  # The report says on what.
    if not result.modified:
        return step.before, result
    # Weights stay mapped from the file, and the entry may be removed at any time.
    own = step.workspace.folder("kept")
    for path in folder.glob(f"{_MODEL}*"):
        (own / path.name).write_bytes(path.read_bytes())
    model = Model.load(own / _MODEL)
    model.source, model.notes = step.before.source, step.before.notes
    model.companions = {**step.before.companions, **companions}
    for graph in iter_graphs(model.ir):
        for name, value in graph.initializers.items():
            if name in document["makers"]:
                note_maker(value, document["makers"][name])
    return model, result


def _has_calibrated(step: Step) -> bool:
    calibrating = step.ctx.calibrating
    return calibrating is not None and calibrating.used is not None


def _hash(content: bytes | None) -> str:
    return hashlib.sha256(content or b"").hexdigest()
