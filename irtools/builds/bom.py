"""The bill of materials of a release, as CycloneDX 1.6 (an ML-BOM).

Written by hand: cyclonedx-python-lib 11 has no model cards. Its validator checks the result in the
tests.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from irtools.builds.config import Config
from irtools.builds.records import BuildRecord
from irtools.files import json_text
from irtools.version import __version__

__all__ = ["bill_of_materials"]

_NAMESPACE = uuid.UUID("b1f64b4e-9a5c-5c0e-8f0e-6c1f7d1a2c11")


def bill_of_materials(
    config: Config, name: str, builds: Sequence[BuildRecord], mains: Sequence[str]
) -> dict[str, Any]:
    """Return the document. It has no time in it: the same release gives the same bytes.

    Args:
        mains: SHA-256 of the main file of each build.
    """
    libraries = list(_libraries(builds))
    models = [_model(config, one, digest) for one, digest in zip(builds, mains, strict=True)]
    data = list(_data(builds))
    root = {"type": "application", "bom-ref": "release", "name": name}
    if config.release.version:
        root["version"] = config.release.version
    references = [part["bom-ref"] for part in (*models, *libraries)]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{"type": "application", "name": "irc", "version": __version__}]
            },
            "component": root,
        },
        "components": [*models, *data, *libraries],
        "dependencies": [
            {"ref": "release", "dependsOn": references},
            *(
                {"ref": m["bom-ref"], "dependsOn": _datasets(one)}
                for m, one in zip(models, builds, strict=True)
            ),
        ],
    }
    serial = uuid.uuid5(_NAMESPACE, json_text(document))
    return {**document, "serialNumber": f"urn:uuid:{serial}"}


def _model(config: Config, one: BuildRecord, digest: str) -> dict[str, Any]:
    table = config.models[one.name.split("/")[0]]
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{one.name}",
        "name": one.name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "modelCard": _card(one),
        "pedigree": {
            "ancestors": [
                {
                    "type": "machine-learning-model",
                    "name": table.base_model or Path(one.source).name,
                    "hashes": [{"alg": "SHA-256", "content": one.inputs.model}],
                }
            ],
            "notes": f"irtools {__version__}: {one.pipeline}",
        },
        "properties": [
            {"name": "irtools:pipeline", "value": one.pipeline},
            {"name": "irtools:target", "value": one.inputs.target},
            {"name": "irtools:runtime", "value": one.inputs.runtime},
            {"name": "irtools:result", "value": one.result_sha256},
        ],
    }
    if table.summary:
        component["description"] = table.summary
    if table.license:
        component["licenses"] = [{"expression": table.license}]
    return component


def _card(one: BuildRecord) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "inputs": [{"format": text} for text in one.interface["inputs"]],
        "outputs": [{"format": text} for text in one.interface["outputs"]],
    }
    if one.task:
        parameters["task"] = one.task
    if one.datasets:
        parameters["datasets"] = [{"ref": reference} for reference in _datasets(one)]
    card: dict[str, Any] = {"modelParameters": parameters}
    if metrics := list(_metrics(one)):
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return card


def _metrics(one: BuildRecord) -> Iterator[dict[str, Any]]:
    scores = one.scores
    if scores.value is not None:
        yield {
            "type": scores.metric,
            "value": f"{scores.value:.6g}",
            "confidenceInterval": {
                "lowerBound": f"{scores.low:.6g}",
                "upperBound": f"{scores.high:.6g}",
            },
        }
    if scores.agreement is not None:
        yield {"type": "agreement with the source", "value": f"{scores.agreement:.6g}"}


def _data(builds: Sequence[BuildRecord]) -> Iterator[dict[str, Any]]:
    for name, digest, _ in {item: None for one in builds for item in one.datasets}:
        yield {
            "type": "data",
            "bom-ref": f"data:{digest}",
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": digest}],
            "data": [{"type": "dataset", "name": name}],
        }


def _datasets(one: BuildRecord) -> list[str]:
    return list(dict.fromkeys(f"data:{digest}" for _, digest, _ in one.datasets))


def _libraries(builds: Sequence[BuildRecord]) -> Iterator[dict[str, Any]]:
    for name, version in builds[0].inputs.versions.items():
        shown = "irtools-compiler" if name == "irtools" else name
        url = f"pkg:{'generic' if name == 'python' else 'pypi'}/{shown}@{version}"
        yield {
            "type": "platform" if name == "python" else "library",
            "bom-ref": url,
            "name": shown,
            "version": version,
            "purl": url,
        }
