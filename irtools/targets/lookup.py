"""From a target's text to the target."""

from __future__ import annotations

from irtools.errors import OptionError
from irtools.plugins import registry, suggest
from irtools.targets.base import Target
from irtools.targets.isa import Isa

__all__ = ["find_target"]


def find_target(text: str, *, check: bool = True) -> Target:
    """Return the target that a text such as `ort-cpu` or `ort-cpu:isa=avx2` names.

    Args:
        text: Name, then options as in pipeline text.
        check: Also make sure that this machine can run it.

    Raises:
        UnknownNameError: No such target.
        OptionError: No such option, or a value it does not take.
        TargetUnavailableError: The runtime or the device is absent here.
    """
    name, *items = text.split(":")
    isa = Isa.detect()
    for item in items:
        key, _, value = item.partition("=")
        if key != "isa":
            raise OptionError(f"target {name!r} has no option {key!r}{suggest(key, ['isa'])}")
        isa = Isa.parse(value)
    target: Target = registry.load("irtools.targets", name)(isa=isa)
    if check:
        target.check_available()
    return target
