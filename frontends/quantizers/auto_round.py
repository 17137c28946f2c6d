"""Intel AutoRound: rounding and ranges tuned block by block, by signs of gradients."""

from __future__ import annotations

import contextlib
import io
import logging
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch

from irtools.errors import DataError, MissingExtraError, UnsupportedError
from irtools.files import scratch_folder
from irtools.frontends.quantizers.grids import Codes, weight_of
from irtools.frontends.quantizers.options import Reader, flag, positive, read_options, whole
from irtools.sources import QuantizerRequest
from irtools.words import counted, one_line

__all__ = ["AutoRound"]

_TOOL = "autoround"
_OPTIONS: Mapping[str, Reader] = {
    "bits": whole(2, 8),
    "group_size": whole(-1, 1 << 20),
    "sym": flag,
    "iters": whole(1, 1 << 20),
    "lr": positive,
    "minmax_lr": positive,
    "batch_size": whole(1, 1 << 16),
    "seqlen": whole(1, 1 << 20),
    "enable_minmax_tuning": flag,
    "enable_quanted_input": flag,
}
_DEFAULTS: Mapping[str, object] = {
    "bits": 4,
    "group_size": 32,
    "sym": False,
    "iters": 200,
    "batch_size": 8,
}
_OF_THE_RUN = ("batch_size", "seqlen")
"""Options of the run; the others are those of the algorithm."""


class AutoRound:
    """`auto_round.AutoRound`, its options by their own names (Cheng et al. 2023).

    Weights come back as numbers on a grid of blocks; embeddings and the last layer stay.
    """

    methods: ClassVar[Mapping[str, str]] = {
        "signround": "rounding and ranges tuned block by block, by signs of gradients"
    }
    needs_data: ClassVar[frozenset[str]] = frozenset({"signround"})

    def check(self, request: QuantizerRequest) -> None:
        read_options(request, _OPTIONS, _DEFAULTS)

    def quantize(
        self, module: Any, samples: Sequence[Mapping[str, Any]], request: QuantizerRequest
    ) -> tuple[Any, tuple[str, ...]]:
        values = read_options(request, _OPTIONS, _DEFAULTS)
        rows, note = _rows(samples, values.get("seqlen"))
        run = {name: values.pop(name) for name in _OF_THE_RUN if name in values}
        with _library() as library:
            try:
                made = _tuned(library, module, rows, values, min(run["batch_size"], len(rows)))
            except Exception as error:  # Whatever the tool raises is its own and no bug of ours.
                reason = one_line(str(error) or type(error).__name__)
                raise UnsupportedError(f"{_TOOL} failed: {reason}") from error
        count = _settled(made, values["group_size"])
        if not count:
            raise UnsupportedError(f"{_TOOL} found no Linear to quantize")
        notes = [f"{_TOOL}: {counted(count, 'Linear')} in {values['bits']} bits"]
        if left := _in_blocks(made) - count:
            # It skips layers whose widths 32 does not divide.
            notes.append(f"{_TOOL} left {counted(left, 'Linear')} inside of blocks as they are")
        return made.requires_grad_(False), (*notes, note)


def _rows(
    samples: Sequence[Mapping[str, Any]], length: int | None
) -> tuple[list[torch.Tensor], str]:
    """Return token ids [1, S] of one length, which the tool puts into batches; and a note.

    Args:
        samples: Without padding.
        length: None: what half of the samples have.

    Raises:
        UnsupportedError: The network takes something else than token ids.
        DataError: No sample is as long.
    """
    if "input_ids" not in samples[0]:
        raise UnsupportedError(f"{_TOOL} tunes networks that take token ids")
    ids = [sample["input_ids"] for sample in samples]
    length = length or int(statistics.median_low(row.shape[1] for row in ids))
    long = [row[:, :length] for row in ids if row.shape[1] >= length]
    if not long:
        longest = max(row.shape[1] for row in ids)
        raise DataError(
            f"seqlen is {length}, and the longest calibration text has {longest} tokens"
        )
    short = len(ids) - len(long)
    left_out = f", {short} shorter ones left out" if short else ""
    return long, f"{_TOOL}: {counted(len(long), 'sample')} of {length} tokens{left_out}"


def _tuned(
    library: Any, module: Any, rows: list[torch.Tensor], values: Mapping[str, Any], batch: int
) -> Any:
    made, _ = library.AutoRound(
        module,
        # It wants one although the data has been read: nothing asks it for anything.
        tokenizer=object(),
        scheme="W4A16",
        dataset=rows,
        nsamples=len(rows),
        seqlen=rows[0].shape[1],
        batch_size=batch,
        device_map="cuda" if torch.cuda.is_available() else "cpu",
        enable_torch_compile=False,
        low_cpu_mem_usage=False,
        **values,
    ).quantize()
    return made.to("cpu").float()


def _settled(module: Any, group: int) -> int:
    """Put weights exactly on the grids of their scales; return how many have one."""
    count = 0
    for layer in module.modules():
        scale = getattr(layer, "scale", None)
        if not isinstance(layer, torch.nn.Linear) or not isinstance(scale, torch.Tensor):
            continue
        width = group if group > 0 else layer.in_features
        steps = scale.float().reshape(layer.out_features, -1)
        codes = _codes(layer.weight.detach(), steps, width)
        layer.weight = torch.nn.Parameter(
            weight_of(Codes(codes, steps, None, width)), requires_grad=False
        )
        for name in ("scale", "zp"):
            if hasattr(layer, name):
                delattr(layer, name)
        count += 1
    return count


def _in_blocks(module: Any) -> int:
    """Return the number of Linear layers in the lists of blocks of a network."""
    lists = [m for m in module.modules() if isinstance(m, torch.nn.ModuleList)]
    found = {id(m) for blocks in lists for m in blocks.modules() if isinstance(m, torch.nn.Linear)}
    return len(found)


def _codes(weight: torch.Tensor, steps: torch.Tensor, width: int) -> torch.Tensor:
    """Return whole numbers [N, K], zero points subtracted."""
    wide = steps.repeat_interleave(width, dim=1)[:, : weight.shape[1]]
    return torch.where(wide == 0, 0.0, torch.round(weight / torch.where(wide == 0, 1.0, wide)))


@contextlib.contextmanager
def _library() -> Iterator[Any]:
    """Import the library in a folder that is gone afterwards, with its talk kept to itself.

    Raises:
        MissingExtraError: It is not installed.
    """
    disabled = logging.root.manager.disable
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder("quantizer"))
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        stack.callback(logging.disable, disabled)
        try:
            import auto_round
        except ImportError as error:
            raise MissingExtraError("--quantizer autoround", _TOOL) from error
        yield auto_round
