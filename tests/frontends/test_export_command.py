"""`irc export` as a user meets it: files whole or not at all, one clear line for bad input."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.cli.main import run
from irtools.errors import FileError
from irtools.model import Model, SavedModel

pytestmark = pytest.mark.torch

NETS = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU())
        self.classifier = torch.nn.Linear(16, 3)

    def forward(self, x):
        return self.classifier(self.body(x))


class Branching(Net):
    def forward(self, x):
        if x.sum() > 0:
            return self.classifier(self.body(x))
        return self.body(x)


class Wrong(Net):
    def forward(self, x):
        return self.classifier(self.body(x)) + (1.0 if torch.compiler.is_compiling() else 0.0)


class Random(Net):
    def forward(self, x):
        return self.classifier(self.body(x) + torch.rand_like(x[:, :1]))


def build():
    torch.manual_seed(0)
    return Net()


class Several(Net):
    def forward(self, x):
        hidden = self.body(x)
        return self.classifier(hidden), (hidden, {"sum": hidden.sum(1)})


class Silent(Net):
    def forward(self, x):
        return None


def fails():
    raise ValueError("no such size")


def fails_in_its_own_way():
    class OwnError(Exception):
        pass

    raise OwnError("no such size")


def leaves():
    raise SystemExit(3)
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of networks in the current folder, and example inputs."""
    (tmp_path / "somenets.py").write_text(NETS)
    (tmp_path / "unreadable.py").write_text("def build(:")
    np.savez(tmp_path / "in.npz", x=np.ones((2, 8), np.float32))
    np.save(tmp_path / "one.npy", np.ones((2, 8), np.float32))
    for name in (
        *("junk.npz", "empty/", "lora/adapter_config.json", "weights/model.safetensors"),
        "trained/checkpoint-20/config.json",
    ):
        path = tmp_path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    monkeypatch.chdir(tmp_path)
    return "somenets"


@pytest.fixture
def irc(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(*args: str) -> tuple[int, str]:
        capfd.readouterr()
        code = run(args)
        return code, capfd.readouterr().err

    return call


def test_a_factory_in_the_current_folder_is_exported(nets: str, irc: Any) -> None:
    code, err = irc("export", f"{nets}:build", "--example", "in.npz", "-o", "net.onnx")
    assert (code, err.count("\n")) == (0, 1)
    names = [node.name for node in Model.load("net.onnx").ir.graph]
    assert names == ["body.0/Gemm", "body.1/Relu", "classifier/Gemm"]


def test_weights_may_be_a_pt_file_of_tensors(nets: str, irc: Any) -> None:
    import torch

    shapes = {"body.0.weight": (16, 8), "body.0.bias": (16,), "classifier.weight": (3, 16)}
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    state["classifier.bias"] = torch.tensor([1.0, 2.0, 3.0])
    torch.save({"state_dict": state, "epoch": 3}, "w.pt")
    args = ("export", f"{nets}:build", "--example", "in.npz", "--weights", "w.pt")
    assert irc(*args, "-o", "net.onnx")[0] == 0
    bias = Model.load("net.onnx").ir.graph.initializers["classifier.bias"]
    np.testing.assert_array_equal(bias.const_value.numpy(), [1, 2, 3])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "_orig_mod.module."])
def test_weights_of_a_wrapped_module_are_taken(nets: str, irc: Any, prefix: str) -> None:
    import torch

    shapes = {"body.0.weight": (16, 8), "body.0.bias": (16,), "classifier.weight": (3, 16)}
    state = {prefix + name: torch.zeros(shape) for name, shape in shapes.items()}
    state[f"{prefix}classifier.bias"] = torch.tensor([1.0, 2.0, 3.0])
    torch.save({"model_state_dict": state, "epoch": 3}, "w.pt")
    args = ("export", f"{nets}:build", "--example", "in.npz", "--weights", "w.pt", "--no-check")
    assert irc(*args, "-o", "net.onnx")[0] == 0
    bias = Model.load("net.onnx").ir.graph.initializers["classifier.bias"]
    np.testing.assert_array_equal(bias.const_value.numpy(), [1, 2, 3])


def test_nested_outputs_are_named_and_compared(nets: str, irc: Any) -> None:
    code, err = irc("export", f"{nets}:Several", "--example", "in.npz", "-o", "net.onnx")
    assert code == 0, err
    names = [value.name for value in Model.load("net.onnx").interface.outputs]
    assert names == ["output_0", "output_1.0", "output_1.1.sum"]


def test_a_whole_pickled_module_is_refused(nets: str, irc: Any) -> None:
    import torch

    torch.save(torch.nn.Linear(2, 2), "w.pt")
    args = ("export", f"{nets}:build", "--example", "in.npz", "--weights", "w.pt")
    code, err = irc(*args, "-o", "net.onnx")
    assert (code, err.count("\n")) == (3, 1)
    assert "never unpacked" in err
    assert not Path("net.onnx").exists()


def test_a_module_that_cannot_be_exported_says_why_and_where(nets: str, irc: Any) -> None:
    code, err = irc("export", f"{nets}:Branching", "--example", "in.npz", "-o", "net.onnx")
    assert (code, err.count("\n")) == (4, 1)
    assert "cannot be exported" in err
    assert "somenets.py:17" in err
    assert not Path("net.onnx").exists()


def test_an_export_that_differs_is_refused(nets: str, irc: Any) -> None:
    code, err = irc("export", f"{nets}:Wrong", "--example", "in.npz", "-o", "net.onnx")
    assert (code, err.count("\n")) == (3, 1)
    assert "differs from torch" in err
    assert not Path("net.onnx").exists()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("{nets}:fails", "--example", "in.npz"), 3, "ValueError: no such size"),
        (("{nets}:fails_in_its_own_way", "--example", "in.npz"), 3, "OwnError: no such size"),
        (("{nets}:leaves", "--example", "in.npz"), 3, "SystemExit: 3"),
        (("{nets}:Random", "--example", "in.npz"), 4, "draws random numbers: output 'output'"),
        (("{nets}:Silent", "--example", "in.npz"), 3, "returns no tensors"),
        (("unreadable:build", "--example", "in.npz"), 3, "SyntaxError"),
        (("{nets}:build", "--example", "junk.npz"), 3, "is not an .npz file"),
        (("{nets}:build", "--example", "one.npy"), 3, "is not an .npz file"),
        (("{nets}:build", "--example", "none.npz"), 6, "cannot read none.npz"),
        (("{nets}:build", "--example", "in.npz", "--task", "fill-mask"), 2, "for checkpoints"),
        (("{nets}:build", "--example", "in.npz", "--weights", "w.pt"), 6, "no weights at w.pt"),
        ((".",), 3, "is not a model that irtools reads"),
        (("nowhere",), 6, "is not a file or folder here"),
        (("nowhere", "--adapter", "x=much"), 2, "'much' is not a number"),
        (("in.npz", "--adapter", "lora"), 2, "--adapter belong"),
        (("nowhere", "--adapter", "x=nan"), 2, "'nan' is not a number"),
        (("empty",), 3, "it is empty"),
        (("lora",), 3, "irc export BASE --adapter lora"),
        (("weights",), 3, "no config.json that says of which network"),
        (("trained/checkpoint-20/config.json",), 3, "give its folder, trained/checkpoint-20"),
        (("trained",), 3, "trained/checkpoint-20 looks like one"),
    ],
)
def test_bad_input_is_one_line(
    nets: str, irc: Any, args: tuple[str, ...], code: int, message: str
) -> None:
    found, err = irc("export", *(a.format(nets=nets) for a in args), "-o", "net.onnx")
    assert (found, err.count("\n")) == (code, 1)
    assert message in err
    assert not Path("net.onnx").exists()


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Checkpoints that load at once: what is tested is how they are written."""
    from irtools.frontends.checkpoint.frontend import TransformersFrontend

    monkeypatch.chdir(tmp_path)
    made = Model.from_ir(
        ir.from_onnx_text(
            """<ir_version: 10, opset_import: ["" : 20]>
            g (float[batch, 8] x) => (float[batch, 8] y) { y = Relu(x) }"""
        )
    )
    monkeypatch.setattr(TransformersFrontend, "load", lambda self, source, options: made)


@pytest.mark.usefixtures("instant")
def test_a_folder_gets_models_and_companions(tiny: Callable[[str], Path], irc: Any) -> None:
    code, err = irc("export", str(tiny("whisper")), "-o", "out/", "--json", "made.json")
    assert code == 0, err
    names = {path.name for path in Path("out").iterdir()}
    assert names == {
        "encoder_model.onnx",
        "decoder_model.onnx",
        "config.json",
        "generation_config.json",
    }
    document = json.loads(Path("made.json").read_text())
    assert {Path(name).name for name in document["files"]} == names
    assert set(document) == {"files", "encoder", "decoder", "notes"}


@pytest.mark.usefixtures("instant")
def test_two_models_need_a_folder(tiny: Callable[[str], Path], irc: Any) -> None:
    code, err = irc("export", str(tiny("whisper")), "-o", "one.onnx")
    assert code == 2
    assert "2 models (encoder, decoder): give a folder" in err
    assert not Path("one.onnx").exists()


@pytest.mark.usefixtures("instant")
def test_a_full_disk_leaves_nothing(
    tiny: Callable[[str], Path], irc: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(path.name for path in Path().iterdir())
    save, calls = Model.save, []

    def full(model: Model, path: Path, **options: Any) -> SavedModel:
        calls.append(path)
        if len(calls) == 2:
            raise FileError(f"cannot write {path.name}: No space left on device")
        return save(model, path, **options)

    monkeypatch.setattr(Model, "save", full)
    code, err = irc("export", str(tiny("whisper")), "-o", "out/")
    assert (code, err.count("\n")) == (6, 1)
    assert "No space left" in err
    assert sorted(path.name for path in Path().iterdir()) == before


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize(
    ("out", "name"), [("out/", "out/encoder_model.onnx"), ("bert.onnx", "bert.onnx")]
)
def test_a_full_disk_is_told_of_the_file_that_was_asked_for(
    tiny: Callable[[str], Path], irc: Any, monkeypatch: pytest.MonkeyPatch, out: str, name: str
) -> None:
    before = sorted(path.name for path in Path().iterdir())

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = str(tiny("whisper" if out == "out/" else "bert"))
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        code, err = irc("export", source, "-o", out)
    assert (code, err.count("\n")) == (6, 1)
    assert f"cannot write '{name}': the disk or quota is full" in err
    assert ".irtools" not in err
    assert sorted(path.name for path in Path().iterdir()) == before


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("out", ["out/", "bert.onnx"])
def test_a_disk_too_full_for_the_tokenizer_leaves_nothing(
    tiny: Callable[[str], Path], irc: Any, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    before = sorted(path.name for path in Path().iterdir())

    def full(source: Path, to: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    code, err = irc("export", str(tiny("bert")), "-o", out)
    assert (code, err.count("\n")) == (6, 1)
    assert "No space left" in err
    assert sorted(path.name for path in Path().iterdir()) == before


def test_layers_without_a_place_are_refused(
    edited_config: Callable[..., Path], irc: Any, tmp_path: Path
) -> None:
    folder = edited_config(num_hidden_layers=1)
    code, err = irc("export", str(folder), "-o", str(tmp_path / "out.onnx"))
    assert (code, err.count("\n")) == (3, 1)
    assert "hold 2 layers encoder.layer.N, and the config makes 1 (num_hidden_layers = 1)" in err
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.usefixtures("instant")
def test_notes_of_a_model_are_shown_once(tiny: Callable[[str], Path], irc: Any) -> None:
    from irtools.frontends.checkpoint.frontend import TransformersFrontend
    from irtools.sources import LoadOptions

    TransformersFrontend().load("", LoadOptions()).notes = ("something was left out",)
    code, err = irc("export", str(tiny("whisper")), "-o", "out/", "--json", "made.json")
    assert code == 0
    assert err.count("irc: note: something was left out\n") == 1
    assert json.loads(Path("made.json").read_text())["notes"] == ["something was left out"]


@pytest.mark.slow
def test_a_missing_tokenizer_is_told(
    tiny: Callable[[str], Path], irc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, err = irc("export", str(tiny("mpnet")), "--no-check", "-o", "out/")
    assert code == 0
    assert "has no tokenizer" in err


@pytest.mark.usefixtures("instant")
def test_companions_are_replaced_only_when_forced(tiny: Callable[[str], Path], irc: Any) -> None:
    Path("config.json").write_text("{}")
    code, err = irc("export", str(tiny("bert")), "-o", "bert.onnx")
    assert code == 0
    assert "kept config.json" in err
    assert Path("config.json").read_text() == "{}"
    code, err = irc("export", str(tiny("bert")), "-o", "bert.onnx", "--force")
    assert code == 0
    assert "kept" not in err
    assert "BertForSequenceClassification" in Path("config.json").read_text()


@pytest.mark.slow
def test_other_verbs_take_a_checkpoint_with_the_same_options(
    tiny: Callable[[str], Path], irc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert irc("inspect", str(tiny("llama")), "--with-past", "--json", "cache.json")[0] == 0
    names = [i["name"] for i in json.loads(Path("cache.json").read_text())["interface"]["inputs"]]
    assert "past_key_values.0.key" in names
    options = ("--task", "feature-extraction", "--passes", "cleanup", "--no-bench", "-o", "a.onnx")
    assert irc("optimize", str(tiny("bert")), *options)[0] == 0
    assert Model.load(Path("a.onnx")).interface.outputs[0].name == "last_hidden_state"


@pytest.mark.parametrize(
    "verb", [("optimize", "--passes", "cleanup"), ("bench",), ("inspect",), ("plan", "-p", "int8")]
)
def test_a_file_takes_no_options_of_an_export(
    verb: tuple[str, ...], irc: Any, tmp_path: Path
) -> None:
    file = tmp_path / "a.onnx"
    file.touch()
    code, err = irc(verb[0], str(file), *verb[1:], "--with-past")
    assert (code, err.count("\n")) == (2, 1)
    assert "--with-past would be for an export" in err
