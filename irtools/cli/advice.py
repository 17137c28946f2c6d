"""What to do instead, for words that users of other tools try first."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ADVICE", "ALIASES", "advice"]

_OPTIMIZE = "irc optimize MODEL --passes"
_REPORT = (
    "every `irc optimize` prints its report; --json FILE keeps it, and "
    "`irc report FILE -o page.html` makes a page of it"
)
_SEARCH = (
    "without --passes a pipeline is looked for: irc optimize MODEL --speedup 3 --max-drop 1% "
    "--calibrate DATA --evaluate DATA"
)
ADVICE: Mapping[str, str] = {
    "quantize": f"quantizing is a pass: {_OPTIMIZE} int8 (or int4; `irc passes int8`)",
    "prune": f"pruning is a pass: {_OPTIMIZE} prune (`irc passes prune`)",
    "fuse": f"fusing is a pass: {_OPTIMIZE} cleanup,fuse",
    "simplify": f"simplifying is a pass: {_OPTIMIZE} cleanup",
    "search": _SEARCH,
    "run": "for the whole job: irc optimize MODEL --passes prune,int8; for timing: irc bench MODEL",
    "package": "for a folder to ship: irc init MODEL && irc build; what the runtime loads of a "
    "model as it is: irc compile MODEL -t TARGET",
    "convert": "irc export SOURCE -o model.onnx makes an ONNX file; irc compile writes what a "
    "runtime loads",
    "serve": "irc serves no models: `irc serve-template RELEASE --for fastapi` (or triton, ovms) "
    "writes what does",
    "gui": "runs and live measurements in a browser: irc ui DIR",
    "benchmark": "timing is `irc bench MODEL...`; `irc optimize` times after every pass",
    "profile": "where the time goes: irc inspect MODEL --profile",
    "eval": "scores are a part of irc optimize MODEL --passes TEXT --evaluate DATA; numbers of "
    "two models: irc compare A B",
    "validate": "numbers of two models: irc compare A B --layers",
    "train": "irc finetune trains a checkpoint, irc distill a smaller student of it",
    "download": "irc downloads nothing: get the model into a folder by other means, such as "
    "`huggingface-cli download NAME --local-dir FOLDER`, and give that folder",
    "list": "`irc passes` lists passes, `irc targets` targets, `irc --help` verbs",
    "version": "the version is `irc --version`",
}
ALIASES: Mapping[str, str] = {
    "quantise": "quantize",
    "quant": "quantize",
    "evaluate": "eval",
    "pull": "download",
    "fetch": "download",
    "web": "gui",
    "autotune": "search",
    "perf": "benchmark",
    "shrink": "run",
    "compress": "run",
    "simplifier": "simplify",
}


def advice(word: str) -> str | None:
    """Return what to do instead of a command that irc does not have; None where that is open."""
    word = word.lower()
    found = ADVICE.get(ALIASES.get(word, word))
    return None if found is None else f"there is no command {word!r}: {found}"
