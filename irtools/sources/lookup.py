"""Frontends: what makes a model of a source. Implementations live in `irtools.frontends`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias

from irtools.errors import FileError, ModelError
from irtools.plugins import registry
from irtools.sources.elsewhere import how_to_convert, how_to_fetch
from irtools.sources.quantizers import QuantizerRequest

if TYPE_CHECKING:
    from irtools.model import Model

__all__ = ["Claim", "Frontend", "LoadOptions", "find_frontend", "load_by", "load_source"]


@dataclass(frozen=True)
class LoadOptions:
    """How a source becomes a model. A frontend refuses options that it cannot honour.

    Attributes:
        opset: ai.onnx opset of an exported model; None is the frontend's choice.
        example: `.npz` with example inputs, for sources that do not state their own.
        weights: `.safetensors`, or `.pt` with tensors only, for sources that are code.
        task: What a checkpoint is to be used for; None: as it says itself.
        with_past: Export a decoder with its key-value cache as inputs and outputs.
        adapters: Adapter folders to merge, in this order, each with the factor of what it adds.
        adapters_as: Where they go: `merged` into the weights; as optional `inputs` next to them,
            which a caller gives one of the adapters; or one as `constants` next to them.
        part: One of the models that a source consists of, as `Frontend.parts` names them.
        trust_remote_code: Run Python files that come with a checkpoint.
        check: Compare an exported model with its source on several sizes.
        sizes: Numbers for dynamic axes of any source, as `with_sizes` of `irtools.model` has them.
        logits: Which tokens a decoder of any source gives scores of: `all`, or the `last` one.
        quantizer: Chooses the weights of a checkpoint before it is exported; None: none does.
    """

    opset: int | None = None
    example: Path | None = None
    weights: Path | None = None
    task: str | None = None
    with_past: bool = False
    adapters: tuple[tuple[Path, float], ...] = ()
    adapters_as: Literal["merged", "inputs", "constants"] = "merged"
    part: str | None = None
    trust_remote_code: bool = False
    check: bool = True
    sizes: tuple[tuple[str, int], ...] = ()
    logits: Literal["all", "last"] = "all"
    quantizer: QuantizerRequest | None = None

    def given(self) -> tuple[str, ...]:
        """Return the options that an export alone honours, as the command line has them."""
        return tuple(
            "--" + ("adapter" if f.name == "adapters" else f.name.replace("_", "-"))
            for f in fields(self)
            if f.name not in ("check", "logits", "part", "sizes")
            and getattr(self, f.name) != f.default
        )


Claim: TypeAlias = Literal["own", "unknown"] | None
"""What a frontend says of a source: it is its own; it is a file that it would read if no other
does; None: neither."""


class Frontend(Protocol):
    """Turns one kind of source into a model."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def accepts(self, source: str) -> Claim:
        """Whether this frontend is meant for a source; looks at names and heads, no more."""

    def load(self, source: str, options: LoadOptions) -> Model:
        """Make the model.

        Raises:
            ModelError: The source is not what it seems to be, or the export is wrong.
            MissingExtraError: The packages it takes are not installed.
            UnsupportedError: Sound, but cannot be exported; says where and why.
        """

    def parts(self, source: str, options: LoadOptions) -> tuple[str, ...]:
        """Names of the models that a source consists of; empty where it is one."""

    def companions(self, source: str) -> tuple[Path, ...]:
        """Files that belong with the model, such as its tokenizer."""


_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth"})


def find_frontend(source: str) -> Frontend:
    """Return the frontend that accepts a source.

    Raises:
        FileError: The source does not exist, or its name is empty.
        ModelError: No frontend knows what it is.
    """
    if not source:
        raise FileError("the name of the source is empty")
    path = Path(source)
    # An address that ends in .onnx must not pass for a file.
    if "://" in source and not path.exists():
        raise FileError(how_to_fetch(source))
    fallback: Frontend | None = None
    for name in sorted(registry.names("irtools.frontends")):
        frontend: Frontend = registry.load("irtools.frontends", name)()
        claim = frontend.accepts(source)
        if claim == "own":
            return frontend
        if claim == "unknown":
            fallback = fallback or frontend
    if fallback is not None:
        return fallback
    if not path.exists():
        if elsewhere := how_to_fetch(source):
            raise FileError(elsewhere)
        raise FileError(
            f"{source} does not exist; expected an .onnx or .gguf file, a checkpoint folder "
            "(nothing is downloaded) or module:function"
        )
    raise ModelError(
        f"{source} is not a model that irtools reads; expected an .onnx or .gguf file, a "
        f"Transformers checkpoint folder (with config.json) or module:function{_instead(path)}"
    )


def _instead(path: Path) -> str:
    """Say what a folder holds that is not a source."""
    if not path.is_dir():
        return ""
    if (path / "irtools.json").is_file():
        return f"; it is a release: give the model file of one of its builds in {path}"
    found = sorted(path.iterdir())
    suffixes = {inner.suffix for inner in found}
    files = [inner for inner in found if inner.suffix.lower() == ".gguf"]
    if (path / "adapter_config.json").is_file():
        return f"; it holds an adapter, which goes to its base: irc export BASE --adapter {path}"
    if inner := next((p for p in reversed(found) if (p / "config.json").is_file()), None):
        return f"; {inner} looks like one"
    if files:
        return f"; {files[0]} is a GGUF file: give its own name"
    if suffixes & _WEIGHTS:
        return "; it has weights, and no config.json that says of which network"
    return "; it is empty" if not found else ""


def load_source(source: str, options: LoadOptions = LoadOptions()) -> Model:
    """Make a model of whatever a source is.

    Raises:
        IrtoolsError: As `find_frontend` and `Frontend.load`.
    """
    return load_by(find_frontend(source), source, options)


def load_by(frontend: Frontend, source: str, options: LoadOptions) -> Model:
    """Make a model of a source, with the sizes and results that are asked for.

    Raises:
        IrtoolsError: As `Frontend.load`.
        UsageError: A size is for an axis that the model does not have, or has fixed; the scores of
            the last token are asked of what is not a decoder.
        UnsupportedError: A cache leaves the size of a head open, and nothing says it.
    """
    try:
        model = frontend.load(source, options)
    except ModelError as error:
        if hint := how_to_convert(source):
            error.add_note(hint)
        raise
    if options.logits == "last" and options.part != "encoder":
        from irtools.sources.last_logits import with_last_logits

        model = with_last_logits(model)
    from irtools.model import with_sizes
    from irtools.sources.head_size import with_head_size

    return with_head_size(with_sizes(model, dict(options.sizes)))
