"""`irc export --quantizer`: weights that another tool chose, and what `int4` makes of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from irtools.cli.main import run
from irtools.errors import DataError, OptionError, UnsupportedError
from irtools.frontends.checkpoint.weights import open_checkpoint
from irtools.frontends.quantizers import quantized_module
from irtools.passes.quantization.ranges.grids import find_grid
from irtools.passmanager import PassContext, PassManager, Pipeline
from irtools.plugins import registry
from irtools.sources import LoadOptions, QuantizerRequest, load_source
from irtools.targets import RunnerOptions

from .conftest import write_ids

pytestmark = [pytest.mark.torch, pytest.mark.neural_compressor]

GPTQ = "neural-compressor:gptq"


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token ids of eight texts; half of them end in padding."""
    return write_ids(tmp_path_factory.mktemp("texts"), 24, padded=4)


def network(folder: Path) -> Any:
    """The network of a checkpoint, as it is exported."""
    return open_checkpoint(folder).module


def quantized(folder: Path, text: str, data: Path | None) -> tuple[Any, tuple[str, ...]]:
    request = QuantizerRequest.parse(text, data=None if data is None else str(data))
    return quantized_module(network(folder), folder, request)


def kept_db(found: np.ndarray, wanted: np.ndarray) -> float:
    noise = float(np.square(found - wanted).sum())
    return float(10 * np.log10(np.square(wanted).sum() / noise)) if noise else np.inf


def logits(model: Any, data: Path) -> np.ndarray:
    """Of the last four texts, which have no padding."""
    import torch

    taken = inspect.signature(model.forward).parameters
    with np.load(data) as arrays, torch.inference_mode():
        feeds = {n: torch.from_numpy(a[4:]) for n, a in arrays.items() if n in taken}
        return np.asarray(model(**feeds).to_tuple()[0].numpy())


@pytest.mark.slow
def test_int4_keeps_what_it_chose(tiny: Callable[[str], Path], texts: Path) -> None:
    request = QuantizerRequest.parse(f"{GPTQ}:group_size=16", data=str(texts))
    exported = load_source(str(tiny("llama")), LoadOptions(quantizer=request))
    assert exported.notes[-2] == f"{GPTQ}: 14 Linears in 4 bits"
    assert exported.notes[-1].startswith(f"{GPTQ} keeps ")
    pipeline = Pipeline("cleanup,int4:min-size=0:exclude=lm_head:embeddings=none")
    steps = PassManager(pipeline).run(exported, PassContext.for_model(exported, "ort-cpu"))
    assert steps[-1].result.counters["num-kept-grid"] == 14
    each = []
    with np.load(texts) as arrays:
        for model in (steps[-1].model, exported):
            ctx = PassContext.for_model(model, "ort-cpu")
            with ctx.runner(model.ir, RunnerOptions(exact=True)) as runner:
                each.append(runner.run({n: arrays[n] for n in runner.input_names})["logits"])
    assert kept_db(*each) > 100


def test_weights_lie_on_grids_that_are_found(tiny: Callable[[str], Path], texts: Path) -> None:
    found, notes = quantized(tiny("llama"), f"{GPTQ}:group_size=16", texts)
    assert notes[0] == f"{GPTQ}: 14 Linears in 4 bits" and notes[1].startswith(f"{GPTQ} keeps ")
    weights = [
        layer.weight.numpy()
        for name, layer in found.named_modules()
        if type(layer).__name__ == "Linear" and name != "lm_head"
    ]
    grids = [find_grid(weight, 0) for weight in weights]
    assert len(grids) == 14 and all(grid is not None and grid.bits == 4 for grid in grids)
    assert kept_db(logits(found, texts), logits(network(tiny("llama")), texts)) > 10


def test_the_nearest_codes_need_no_data(tiny: Callable[[str], Path], texts: Path) -> None:
    text = "neural-compressor:rtn:bits=8:group-size=16:use_sym=true"
    found, notes = quantized(tiny("bert"), text, None)
    assert notes[0].endswith("Linears in 8 bits") and len(notes) == 1
    assert 25 < kept_db(logits(found, texts), logits(network(tiny("bert")), texts)) < 60
    kinds = {type(layer).__name__ for layer in found.modules()}
    assert "Linear" in kinds and not any(kind.startswith("INC") for kind in kinds)


@pytest.mark.slow
def test_scaled_inputs_stay_nodes(tiny: Callable[[str], Path], texts: Path) -> None:
    found, notes = quantized(tiny("llama"), "neural-compressor:awq", texts)
    assert "14 Linears read scaled inputs, a Mul each" in notes
    assert kept_db(logits(found, texts), logits(network(tiny("llama")), texts)) > 5


def test_nothing_is_left_in_the_folders_of_the_caller(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    quantized(tiny("llama"), "neural-compressor:rtn", None)
    assert Path.cwd() == tmp_path and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("neural-compresor:rtn", "no quantizer 'neural-compresor'; did you mean 'neural-compres"),
        ("neural-compressor", "neural-compressor has no method ''; it has rtn, gptq, awq"),
        ("neural-compressor:hqq", "neural-compressor has no method 'hqq'; it has rtn, gptq, awq"),
        (f"{GPTQ}:bit=4", "has no option 'bit'; did you mean 'bits'"),
        (f"{GPTQ}:act_order=true", "neural-compressor:gptq has no option 'act_order'"),
        (f"{GPTQ}:bits=9", "bits is '9', expected a whole number from 2 to 8"),
        (f"{GPTQ}:use_sym=yes", "use_sym is 'yes', expected true or false"),
        (f"{GPTQ}:percdamp=2", "percdamp is '2', expected a number between 0 and 1"),
        (f"{GPTQ}:group_size=0", "group_size is 0, expected -1"),
        (f"{GPTQ}:bits", "expected tool:method:option=value, such as neural-compressor:gptq:bits"),
        (f"{GPTQ}:bits=4:bits=8", "bits is given twice"),
    ],
)
def test_what_it_cannot_be_asked(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said.replace("(", r"\(")):
        QuantizerRequest.parse(text)


def test_data_is_asked_for(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(DataError, match="gptq chooses weights by data: give --calibrate"):
        quantized(tiny("llama"), GPTQ, None)


def test_a_pair_of_networks_is_refused(tiny: Callable[[str], Path], texts: Path) -> None:
    request = QuantizerRequest.parse(GPTQ, data=str(texts))
    with pytest.raises(UnsupportedError, match="is an encoder-decoder, and --quantizer takes"):
        load_source(str(tiny("t5")), LoadOptions(part="encoder", quantizer=request))


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--calibrate", "ids.npz"), 2, "--calibrate is for --quantizer"),
        (("--quantizer", f"{GPTQ}:bits=x"), 2, "bits is 'x', expected a whole number from 2 to 8"),
        (("--quantizer", GPTQ, "--calibrate", "none.npz"), 6, "no data at none.npz"),
    ],
)
def test_messages_of_the_command(
    tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("ids.npz", input_ids=np.ones((2, 4), np.int64))
    assert run(["export", str(tiny("llama")), "-o", "out.onnx", *more]) == code
    err = capfd.readouterr().err
    assert said in err and "Traceback" not in err and not Path("out.onnx").exists()


class Halving:
    """A quantizer of another package."""

    methods: ClassVar[dict[str, str]] = {"half": "all weights halved"}
    needs_data: ClassVar[frozenset[str]] = frozenset()

    def check(self, request):
        pass

    def quantize(self, module, samples, request):
        for parameter in module.parameters():
            parameter.requires_grad_(False).mul_(0.5)
        return module, ("halved",)


def test_packages_add_quantizers(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "names", lambda group: frozenset({"halving"}))
    monkeypatch.setattr(registry, "load", lambda group, name: Halving)
    module = network(tiny("bert"))
    before = module.get_input_embeddings().weight.detach().clone()
    found, notes = quantized_module(module, tiny("bert"), QuantizerRequest.parse("halving:half"))
    assert notes == ("halved",)
    np.testing.assert_array_equal(found.get_input_embeddings().weight, before / 2)
