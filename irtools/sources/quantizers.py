"""Quantizers of torch modules: tools that choose the weights of a network before its export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from irtools.errors import OptionError
from irtools.plugins import registry, suggest

__all__ = ["QUANTIZER_GROUP", "QuantizerRequest", "TorchQuantizer", "find_quantizer"]

QUANTIZER_GROUP = "irtools.quantizers"
"""Entry points of quantizers."""


@dataclass(frozen=True)
class QuantizerRequest:
    """Which quantizer, how, and on which data.

    Attributes:
        tool: Its name.
        method: One of its methods.
        options: Of the method, as text, by the tool's own names.
        data: What to calibrate on, as `load_dataset` takes it; None: nothing.
        samples: At most so many, evenly spread.
        max_length: Tokens of a text, at most.
        tokenizer: Reads text; None: the checkpoint's own.
    """

    tool: str
    method: str
    options: tuple[tuple[str, str], ...] = ()
    data: str | None = None
    samples: int = 128
    max_length: int | None = None
    tokenizer: Path | None = None

    @classmethod
    def parse(cls, text: str, **more: Any) -> QuantizerRequest:
        """Read `tool:method:option=value:...`; a tool of one method goes without its name.

        Raises:
            OptionError: It is something else, or there is no such quantizer or method.
        """
        tool, *rest = text.split(":")
        quantizer = find_quantizer(tool)
        if len(quantizer.methods) == 1 and (not rest or "=" in rest[0]):
            rest = [*quantizer.methods, *rest]
        method, *parts = rest or [""]
        if method not in quantizer.methods:
            raise OptionError(
                f"{tool} has no method {method!r}; it has {', '.join(quantizer.methods)}"
            )
        pairs = [tuple(part.partition("=")[::2]) for part in parts]
        for name, value in pairs:
            if not name or not value:
                raise OptionError(
                    f"{text!r}: expected tool:method:option=value, such as {tool}:{method}:bits=4"
                )
        options = tuple((name.replace("-", "_"), value) for name, value in pairs)
        doubled = sorted({name for name, _ in options if [n for n, _ in options].count(name) > 1})
        if doubled:
            raise OptionError(f"{text!r}: {', '.join(doubled)} is given twice")
        request = cls(tool, method, options, **more)
        quantizer().check(request)
        return request


class TorchQuantizer(Protocol):
    """Quantizes the weights of a torch module."""

    methods: ClassVar[Mapping[str, str]]
    """What it can do, with a few words on each."""
    needs_data: ClassVar[frozenset[str]]
    """Those of its methods that are calibrated."""

    def check(self, request: QuantizerRequest) -> None:
        """Check the options, as far as that goes without the tool.

        Raises:
            OptionError: One that the method has not, or whose value is wrong.
        """

    def quantize(
        self, module: Any, samples: Sequence[Mapping[str, Any]], request: QuantizerRequest
    ) -> tuple[Any, tuple[str, ...]]:
        """Return the module with other weights, in ordinary layers, and notes.

        Args:
            module: In evaluation mode; may be changed in place.
            samples: Inputs of one call each, tensors by name, without padding.

        Raises:
            MissingExtraError: The tool is not installed.
            UnsupportedError: It fails, or the module has nothing that it quantizes.
        """


def find_quantizer(name: str) -> type[TorchQuantizer]:
    """Return a quantizer by name.

    Raises:
        OptionError: There is none.
    """
    names = registry.names(QUANTIZER_GROUP)
    if name not in names:
        raise OptionError(f"there is no quantizer {name!r}{suggest(name, names)}")
    found: type[TorchQuantizer] = registry.load(QUANTIZER_GROUP, name)
    return found
