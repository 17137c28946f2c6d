"""Where a release comes from: an in-toto statement with SLSA provenance.

Statement: https://in-toto.io/Statement/v1, predicate: https://slsa.dev/provenance/v1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from irtools.builds.records import BuildRecord, FileRecord
from irtools.version import __version__

__all__ = ["provenance"]

_HOME = "https://github.com/irtools/irtools"


def provenance(
    builds: Sequence[BuildRecord], files: Mapping[str, FileRecord], config: str
) -> dict[str, Any]:
    """Return the statement about the files of a release.

    Args:
        files: What it is about, by relative path.
        config: SHA-256 of the tables of `irc.toml`.
    """
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": name, "digest": {"sha256": file.sha256}} for name, file in files.items()
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{_HOME}/build/v1",
                "externalParameters": {
                    "config": {"name": "irc.toml", "digest": {"sha256": config}},
                    "builds": [_parameters(one) for one in builds],
                },
                "internalParameters": {
                    "hosts": sorted({one.inputs.host for one in builds}),
                    "code": {"sha256": builds[0].inputs.code},
                },
                "resolvedDependencies": list(_dependencies(builds)),
            },
            "runDetails": {
                "builder": {"id": f"{_HOME}/irc-build", "version": {"irtools": __version__}},
                "metadata": {"finishedOn": max(one.created for one in builds)},
            },
        },
    }


def _parameters(one: BuildRecord) -> dict[str, Any]:
    return {
        "name": one.name,
        "pipeline": one.inputs.pipeline,
        "passes": one.pipeline,
        "target": one.inputs.target,
        "settings": msgspec.to_builtins(one.inputs.settings),
    }


def _dependencies(builds: Sequence[BuildRecord]) -> Iterator[dict[str, Any]]:
    sources = {(Path(one.source).name, one.inputs.model): None for one in builds}
    for name, digest in sources:
        yield {"name": name, "digest": {"sha256": digest}, "annotations": {"role": "model"}}
    data = {item: None for one in builds for item in one.datasets}
    for name, digest, samples in data:
        yield {
            "name": name,
            "digest": {"sha256": digest},
            "annotations": {"role": "data", "samples": samples},
        }
    for name, version in builds[0].inputs.versions.items():
        kind = "generic" if name == "python" else "pypi"
        shown = "irtools-compiler" if name == "irtools" else name
        yield {"name": shown, "uri": f"pkg:{kind}/{shown}@{version}"}
