"""Runs a kit on another machine by the system's ssh."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from irtools.errors import DataError, LimitError, UnsupportedError, UsageError
from irtools.measure.kit.base import KitTimes
from irtools.measure.kit.result import parse_result
from irtools.words import printable

__all__ = ["Host", "run_on"]

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]*")
_SCRIPT = """\
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/kit.zip"
{python} "$folder/kit.zip" -o "$folder/result.json" >&2
cat "$folder/result.json"
"""
_FAILED = 255
"""What ssh ends with when it is its own failure."""


@dataclass(frozen=True)
class Host:
    """Where to run: `ssh://user@host:port?python=/opt/venv/bin/python`."""

    name: str
    port: int | None = None
    python: str = "python3"

    @classmethod
    def parse(cls, text: str) -> Host:
        """Read an address.

        Raises:
            UsageError: It is not one.
        """
        try:
            found = urlsplit(text)
            port, query = found.port, parse_qs(found.query, strict_parsing=bool(found.query))
        except ValueError as error:
            raise UsageError(f"{text!r} is not an address: {error}") from error
        user, at, host = found.netloc.rpartition("@")
        host = host.removesuffix(f":{port}")
        wrong = found.path.strip("/") or found.fragment or set(query) - {"python"}
        names = (user, host) if at else (host,)
        # A name that begins with a hyphen would be an option of ssh.
        if found.scheme != "ssh" or wrong or not all(map(_PLAIN.fullmatch, names)):
            raise UsageError(
                f"{text!r} is not where models can be timed: expected ssh://user@host, "
                "ssh://host:2222 or ssh://host?python=/opt/venv/bin/python"
            )
        return cls(f"{user}{at}{host}", port, query.get("python", ["python3"])[0])


def run_on(host: Host, kit: Path, identity: str, seconds: float) -> KitTimes:
    """Copy a kit to another machine, run it there, and fetch the result; nothing stays there.

    Args:
        identity: Of the kit, as `pack_kit` returned it.
        seconds: When it counts as hung.

    Raises:
        UnsupportedError: There is no ssh here, the machine cannot be reached, or the kit fails.
        LimitError: It takes too long.
        DataError: What comes back is not the result of this kit.
    """
    if shutil.which("ssh") is None:
        raise UnsupportedError("timing on another machine needs ssh, which is not installed here")
    script = _SCRIPT.format(python=shlex.quote(host.python))
    command = ["ssh", "-o", "BatchMode=yes", *(["-p", str(host.port)] if host.port else [])]
    try:
        with kit.open("rb") as stream:
            found = subprocess.run(
                [*command, "--", host.name, f"exec sh -c {shlex.quote(script)}"],
                stdin=stream,
                capture_output=True,
                timeout=seconds,
            )
    except subprocess.TimeoutExpired as error:
        raise LimitError(f"{host.name} took longer than the limit of {seconds:g} s") from error
    if found.returncode != 0:
        said = found.stderr.decode(errors="replace").strip().splitlines()
        reason = printable(said[-1], 300) if said else f"it ended with {found.returncode}"
        what = "cannot be reached" if found.returncode == _FAILED else "did not run the kit"
        raise UnsupportedError(f"{host.name} {what}: {reason}")
    timed = parse_result(found.stdout, f"the answer of {host.name}")
    if timed.kit != identity:
        raise DataError(f"{host.name} answered with the result of another kit")
    return timed
