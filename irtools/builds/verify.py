"""Checks a release where it is used: its files, its signature, and its numbers on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from irtools.builds.records import BuildRecord, Manifest
from irtools.builds.release import SIGNATURE_FILE, faults_of, read_release
from irtools.builds.samples import SAMPLES_FILE, read_samples, run_samples
from irtools.builds.signing import why_not_signed
from irtools.errors import DataError, IrtoolsError, TargetUnavailableError
from irtools.metrics import FidelityMeter
from irtools.plugins import NullProgress, Progress
from irtools.targets import Isa, Target, find_target
from irtools.words import counted, sqnr_text

__all__ = ["Finding", "verify_release"]

Outcome = Literal["ok", "failed", "not checked"]

_SAME_DB = 60.0
"""Least SQNR on the same instruction set and runtime: rounding in another order, and no more."""
_OTHER_DB = 20.0
"""Least SQNR elsewhere: int8 kernels of other instruction sets round differently."""


@dataclass(frozen=True)
class Finding:
    """One check: what was checked, and how it went."""

    what: str
    outcome: Outcome
    text: str


def verify_release(
    folder: Path, key: Path | None = None, progress: Progress | None = None
) -> Iterator[Finding]:
    """Check a release.

    Args:
        key: Public key of the signature; None: it is not checked.
        progress: Where to report progress.

    Yields:
        One finding for the files, one for the signature, one for the numbers of each build.

    Raises:
        FileError: There is no release.
        DataError: It is one of another version.
    """
    shown = progress or NullProgress()
    manifest = read_release(folder)
    shown.step("hashing", 0, 1)
    faults = faults_of(folder, manifest)
    yield _files(manifest, faults)
    yield _signature(folder, key)
    for number, one in enumerate(manifest.builds):
        shown.step(f"running {one.name}", number, len(manifest.builds))
        if any(fault.startswith(f"{one.name}/") for fault in faults):
            yield Finding(one.name, "not checked", "its files are not those that were built")
        else:
            yield _numbers(folder / one.name, one)


def _files(manifest: Manifest, faults: list[str]) -> Finding:
    if not faults:
        return Finding("files", "ok", f"{counted(len(manifest.files), 'file')} as written")
    more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
    return Finding("files", "failed", "; ".join(faults[:3]) + more)


def _signature(folder: Path, key: Path | None) -> Finding:
    present = (folder / SIGNATURE_FILE).is_file()
    if key is None:
        text = "there is one: give the public key with --key" if present else "there is none"
        return Finding("signature", "not checked", text)
    why = why_not_signed(folder, key)
    return Finding("signature", "failed" if why else "ok", why or f"holds for {key}")


def _numbers(folder: Path, one: BuildRecord) -> Finding:
    samples = folder / SAMPLES_FILE
    if not samples.is_file():
        return Finding(one.name, "not checked", "; ".join(one.notes) or "it has no samples")
    try:
        target = find_target(one.inputs.target)
        feeds, expected = read_samples(samples)
        found = run_samples(folder / one.main, target, feeds)
        meter = FidelityMeter()
        for before, after in zip(expected, found, strict=True):
            meter.update(before, after)
        sqnr = meter.result().sqnr_db
    except TargetUnavailableError as error:
        return Finding(one.name, "not checked", str(error))
    except (DataError, IrtoolsError) as error:
        return Finding(one.name, "failed", str(error))
    return _judged(one, target, sqnr, len(feeds))


def _judged(one: BuildRecord, target: Target, sqnr: float, runs: int) -> Finding:
    here = Isa.detect().value
    same = one.inputs.host.startswith(f"{here},") and one.inputs.runtime == target.version()
    least = _SAME_DB if same else _OTHER_DB
    where = "" if same else f", built on {one.inputs.host.split(',')[0]} with {one.inputs.runtime}"
    shown = sqnr_text(sqnr) if sqnr == sqnr else "no numbers"
    text = f"{shown} over {counted(runs, 'sample')} on {here} with {target.version()}{where}"
    if sqnr >= least:
        return Finding(one.name, "ok", text)
    return Finding(one.name, "failed", f"{text}: expected {least:.0f} dB or more")
