"""A decoder in use: a prompt in, tokens out, one by one and timed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from irtools.analysis.decoder import is_past
from irtools.data import ChatTemplate, read_chat_template
from irtools.driver.prompt_cache import read_prompt_cache
from irtools.driver.sampling import Sampler, Sampling, Stops
from irtools.errors import DataError, FileError, UnsupportedError, UsageError
from irtools.files import context_length, read_settings
from irtools.measure.cpu import cpu_quota
from irtools.model import Model
from irtools.sources import ADAPTER_SUFFIX, PAST_SUFFIX, with_head_size
from irtools.targets import (
    Runner,
    RunnerOptions,
    SwitchesAdapters,
    TextState,
    begin_text,
    find_target,
    text_decoder_of,
)
from irtools.words import counted, one_line

__all__ = ["Piece", "Speed", "Talker", "adapter_name", "find_main", "open_talker", "speed_of"]

_TARGETS = {".onnx": "ort-cpu", ".ort": "ort-cpu", ".xml": "openvino-cpu"}
_ADAPTERS = (ADAPTER_SUFFIX, PAST_SUFFIX)
_TOKENIZER = "tokenizer.json"
_GENAI_CONFIG = "genai_config.json"
_ENCODER_DECODER = {"encoder_model", "decoder_model"}
_CONFIGS = ("generation_config.json", "config.json")


@dataclass(frozen=True)
class Piece:
    """One token that was written.

    Attributes:
        token: Its id.
        text: What it adds to the text; empty where a character is not yet complete.
        seconds: How long it took, from the prompt or from the token before.
    """

    token: int
    text: str
    seconds: float


@dataclass(frozen=True)
class Speed:
    """How quickly a text was written.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        tokens: Tokens that were written.
        first_seconds: Until the first of them.
        tokens_per_second: Of those after the first; None where there are none.
    """

    prompt_tokens: int
    tokens: int
    first_seconds: float
    tokens_per_second: float | None


def speed_of(prompt: np.ndarray, pieces: list[Piece]) -> Speed:
    """Return the speed of a text of at least one token."""
    later = [piece.seconds for piece in pieces[1:]]
    rate = len(later) / sum(later) if later else None
    return Speed(len(prompt), len(pieces), pieces[0].seconds, rate)


class Talker:
    """A decoder with the tokenizer, chat template and end tokens next to it.

    Args:
        runner: The model.
        folder: Where the files next to it are.
        name: What messages call it.

    Attributes:
        cache_bytes: Memory of the cache of the last text; None where the runtime hides it.

    Raises:
        UnsupportedError: It does not continue texts by itself, with a cache.
        FileError: It has no tokenizer, or one that cannot be read.
    """

    def __init__(self, runner: Runner, folder: Path, name: str) -> None:
        decoder = text_decoder_of(runner)
        if decoder is None and any("encoder" in one for one in runner.input_names):
            raise UnsupportedError(_needs_encoder(name))
        if decoder is None:
            raise UnsupportedError(
                f"{name} does not write text: expected a decoder with its cache, as `irc export "
                f"--with-past` makes them; it takes {', '.join(runner.input_names)}"
            )
        self.name = name
        self._runner = runner
        self._decoder = decoder
        self._folder = folder
        self._tokenizer = _read_tokenizer(folder, name)
        self.cache_bytes: int | None = None
        self._past: dict[str, np.ndarray] | None = None

    def close(self) -> None:
        """Free the model."""
        self._runner.close()

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters next to the model."""
        return tuple(
            sorted(
                adapter_name(file.name)
                for suffix in _ADAPTERS
                for file in self._folder.glob(f"*{suffix}")
            )
        )

    def use_adapter(self, name: str | None) -> None:
        """Write with an adapter from the next text on.

        Args:
            name: Of a file next to the model, without its suffix, or a path; None: the base alone.

        Raises:
            UnsupportedError: The runtime switches no adapters.
            FileError: There is no such adapter, or it cannot be read.
            ModelError: It was made for another model.
        """
        path = None if name is None else self._adapter_file(name)
        is_past = path is not None and path.name.endswith(PAST_SUFFIX)
        past = None
        if path is not None and is_past:
            past = read_prompt_cache(path, self._decoder, self.context_length, self.name)
        if isinstance(self._runner, SwitchesAdapters):
            self._runner.use_adapter(None if is_past else path)
        elif path is not None and not is_past:
            raise UnsupportedError(
                f"the runtime of {self.name} switches no adapters: give ort-cpu as target"
            )
        self._past = past

    def _adapter_file(self, name: str) -> Path:
        if name.endswith(_ADAPTERS):
            return Path(name)
        found = [self._folder / f"{name}{suffix}" for suffix in _ADAPTERS]
        for path in found:
            if path.is_file():
                return path
        there = self.adapters
        raise FileError(
            f"{self.name} has no adapter {name!r}; "
            + (
                f"it has {', '.join(there)}"
                if there
                else "none is next to the model, where irc export --adapters-as inputs puts them"
            )
        )

    def chat(self, prompt: str, system: str | None = None) -> np.ndarray:
        """Return the tokens of a question in the model's chat template, [P].

        Without a template they are those of `raw`.

        Args:
            system: Instructions in front of the question; None: those of the template.

        Raises:
            DataError: The template fails, or there are no tokens, or no template for `system`.
        """
        template = self._template
        if template is None and system is not None:
            raise DataError(f"{self.name} has no chat template, so there is no system prompt")
        if template is None:
            return self.raw(prompt)
        before = [] if system is None else [{"role": "system", "content": system}]
        text = template.render([*before, {"role": "user", "content": prompt}])
        return self._tokens(text, special=False)

    def raw(self, prompt: str) -> np.ndarray:
        """Return the tokens of a text that is to be continued, [P].

        Raises:
            DataError: There are none.
        """
        return self._tokens(prompt, special=True)

    def write(
        self,
        prompt: np.ndarray,
        new_tokens: int,
        sampling: Sampling = Sampling(),
        stops: Sequence[str] = (),
    ) -> Iterator[Piece]:
        """Continue a prompt until the text ends.

        Args:
            prompt: Token ids, [P].
            new_tokens: Most tokens to write; where less room is left in the context, so many.
            sampling: How tokens are chosen; by default the likeliest at each step.
            stops: The text ends before any of these.

        Raises:
            DataError: The prompt fills the context, or the model does not run on it.
        """
        from tokenizers.decoders import DecodeStream

        limit = self.context_length
        learned = 0 if self._past is None else self._decoder.length(self._past)
        if limit is not None and len(prompt) + learned >= limit:
            raise DataError(
                f"the prompt has {counted(len(prompt), 'token')}, and the context of {self.name} "
                f"is {limit}{f', {learned} of it taken by the adapter' if learned else ''}: "
                "shorten it"
            )
        limit = None if limit is None else limit - learned
        room = new_tokens if limit is None else min(new_tokens, limit - len(prompt))
        stream, held = DecodeStream(skip_special_tokens=True), Stops(stops)
        sampler = Sampler(sampling, prompt)
        ids, text = prompt[None], begin_text(self._runner, self._decoder, 1, self._past)
        for number in range(room):
            start = time.perf_counter()
            token = sampler.choose(self._read(text, ids)[0, -1])
            seconds = time.perf_counter() - start
            self.cache_bytes = text.cache_bytes
            ends = token in self.ends
            written = stream.step(self._tokenizer, token) or ""
            shown, stopped = held.add(written, last=ends or number + 1 == room)
            yield Piece(token, shown, seconds)
            if ends or stopped:
                return
            ids = np.array([[token]], np.int64)

    def _read(self, text: TextState, ids: np.ndarray) -> np.ndarray:
        try:
            return text.read(ids)
        except DataError as error:
            if self.context_length is None:
                error.add_note(
                    f"after {counted(text.length, 'token')}; no config.json next to {self.name} "
                    "says how long its texts may be"
                )
            raise

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens that end a text, by the generation or model configuration next to the model.

        Raises:
            FileError: It has something else there.
        """
        for name in _CONFIGS:
            found = read_settings(self._folder / name).get("eos_token_id")
            if found is None:
                continue
            tokens = found if isinstance(found, list) else [found]
            if not all(isinstance(token, int) for token in tokens):
                raise FileError(
                    f"{self._folder / name}: eos_token_id is {found!r}, expected a token's number "
                    "or a list of them"
                )
            return frozenset(tokens)
        return frozenset()

    @cached_property
    def context_length(self) -> int | None:
        """Most tokens of a text; None where no file says it."""
        found = context_length(read_settings(self._folder / "config.json"))
        if found is None:
            model = read_settings(self._folder / _GENAI_CONFIG).get("model")
            stated = model.get("context_length") if isinstance(model, dict) else None
            found = stated if isinstance(stated, int) else None
        return found

    @cached_property
    def _template(self) -> ChatTemplate | None:
        return read_chat_template(self._folder)

    def _tokens(self, text: str, *, special: bool) -> np.ndarray:
        ids = self._tokenizer.encode(text, add_special_tokens=special).ids
        if not ids:
            raise DataError("the prompt has no tokens")
        return np.array(ids, np.int64)


def adapter_name(path: str) -> str:
    """Return what an adapter is called: its file without folder and suffix, or the name itself."""
    name = Path(path).name
    for suffix in _ADAPTERS:
        name = name.removesuffix(suffix)
    return name


def find_main(source: Path) -> Path:
    """Return the file that a runtime opens: the source, or the one model of a folder.

    Raises:
        FileError: There is none.
        UsageError: There are several.
        UnsupportedError: They are an encoder and its decoder.
    """
    if not source.is_dir():
        if not source.is_file():
            raise FileError(f"there is no file or folder {source}")
        return source
    found = sorted(path for path in source.iterdir() if path.suffix in _TARGETS)
    # Tokenizers are models of OpenVINO, too.
    found = [path for path in found if not path.stem.endswith("tokenizer")]
    if not found:
        raise FileError(f"{source} holds no model (.onnx, .ort or .xml)")
    if {path.stem for path in found} == _ENCODER_DECODER:
        raise UnsupportedError(_needs_encoder(str(source)))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{source} holds several models: name one of {names}")
    return found[0]


def _needs_encoder(name: str) -> str:
    return (
        f"{name} writes from what its encoder has read (T5, Whisper), and only decoders that "
        "continue a text by themselves are run here: irc bench and irc compare take its models"
    )


def open_talker(
    source: str, target: str | None, threads: int | None, adapter: str | None = None
) -> Talker:
    """Open a decoder and what is next to it.

    Args:
        source: The model file, or a folder with one.
        target: What runs it; None: OpenVINO for its own files, else ONNX Runtime.
        threads: Threads; None: the CPU quota.
        adapter: The adapter to write with, as `Talker.use_adapter` takes it; None: none.

    Raises:
        IrtoolsError: As `find_main`, `find_target`, `Target.runner`, `Talker` and
            `Talker.use_adapter`.
    """
    main = find_main(Path(source))
    found = find_target(target or _TARGETS.get(main.suffix, "ort-cpu"))
    settings = RunnerOptions(threads=threads or cpu_quota())
    runner = found.runner(main, settings)
    if main.suffix == ".onnx" and _leaves_head_open(runner):
        runner.close()
        runner = found.runner(with_head_size(Model.load(main)), settings)
    talker = Talker(runner, main.parent, source)
    if adapter is not None:
        talker.use_adapter(adapter)
    return talker


def _leaves_head_open(runner: Runner) -> bool:
    """Whether a cache input does not say how large a head is."""
    return any(is_past(s.name) and s.shape is not None and not s.shape[-1] for s in runner.slots)


def _read_tokenizer(folder: Path, name: str) -> Any:
    from tokenizers import Tokenizer

    path = folder / _TOKENIZER
    if not path.is_file():
        raise FileError(
            f"{name} has no {_TOKENIZER} next to it, so there are no tokens of a prompt"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # The library raises nothing narrower.
        raise FileError(f"cannot read {path}: {one_line(error)}") from error
