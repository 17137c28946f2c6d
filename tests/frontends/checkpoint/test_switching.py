"""Adapters next to the weights: switched by files, untouched by quantization, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irtools
from irtools.analysis.adapters import adapter_inputs
from irtools.cli.main import run as irc
from irtools.errors import IrtoolsError, UnsupportedError
from irtools.frontends.checkpoint.weights import open_checkpoint
from irtools.model import Model
from irtools.sources import LoadOptions, load_source
from irtools.targets import Runner, RunnerOptions, find_target, lowered

pytestmark = [
    pytest.mark.torch,
    # Each export of a decoder takes seconds; `test_low_rank` has the graph alone.
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = np.arange(14).reshape(2, 7) + 3


def write_adapter(base: Path, folder: Path, seed: int, **config: Any) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    module = get_peft_model(open_checkpoint(base).module, LoraConfig(**config))
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.2)
    module.save_pretrained(folder)
    return folder


def torch_logits(base: Path, adapter: Path | None) -> np.ndarray:
    import torch
    from peft import PeftModel

    module = open_checkpoint(base).module
    if adapter is not None:
        module = PeftModel.from_pretrained(module, adapter).eval()
    with torch.inference_mode():
        found: np.ndarray = module(input_ids=torch.from_numpy(IDS)).logits.numpy()
    return found


@pytest.fixture(scope="module")
def adapters(
    tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One of rank 4 on every linear layer, one of rank 2 on two of them, with rsLoRA's factor."""
    place, base = tmp_path_factory.mktemp("adapters"), tiny("llama")
    return {
        "wide": write_adapter(base, place / "wide", 1, r=4, lora_alpha=6, target_modules=ALL),
        "narrow": write_adapter(
            base,
            place / "narrow",
            2,
            r=2,
            lora_alpha=6,
            target_modules=["q_proj", "v_proj"],
            use_rslora=True,
        ),
    }


def write_prompt(base: Path, folder: Path, kind: str, **config: Any) -> Path:
    import peft
    import torch

    torch.manual_seed(3)
    made = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=5, **config)
    peft.get_peft_model(open_checkpoint(base).module, made).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def prompts(
    tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One prompt of each method."""
    place, base = tmp_path_factory.mktemp("prompts"), tiny("llama")
    return {
        "prefix": write_prompt(base, place / "prefix", "PrefixTuningConfig"),
        "prompt": write_prompt(base, place / "prompt", "PromptTuningConfig"),
        "encoder": write_prompt(
            base, place / "encoder", "PromptEncoderConfig", encoder_hidden_size=16
        ),
    }


@pytest.fixture(scope="module")
def folder(
    tiny: Callable[[str], Path],
    adapters: dict[str, Path],
    prompts: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What `irc export` makes of all of them."""
    out = tmp_path_factory.mktemp("out") / "llm"
    paths = (*adapters.values(), *prompts.values())
    given = [text for path in paths for text in ("--adapter", str(path))]
    command = ["export", str(tiny("llama")), "--with-past", *given, "--adapters-as", "inputs"]
    assert irc([*command, "-o", f"{out}/"]) == 0
    return out


def logits(model: Model | Path, adapter: Path | None = None) -> np.ndarray:
    with find_target("ort-cpu").runner(model, RunnerOptions(exact=True)) as runner:
        runner.use_adapter(adapter)  # type: ignore[attr-defined]
        return read_once(runner)


def read_once(runner: Runner) -> np.ndarray:
    """Return the logits of IDS, after an empty cache where there is one."""
    sizes = {slot.name: slot.shape for slot in runner.slots if slot.required}
    feeds = {
        name: np.zeros([2, sizes[name][1], 0, sizes[name][3]], np.float32)  # type: ignore[index]
        for name in sizes
        if name.startswith("past")
    }
    feeds |= {
        "input_ids": IDS,
        "attention_mask": np.ones_like(IDS),
        "position_ids": np.tile(np.arange(7), (2, 1)),
    }
    return runner.run({name: feeds[name] for name in sizes}, ["logits"])["logits"]


def test_one_folder_serves_the_base_and_both_adapters(
    tiny: Callable[[str], Path], adapters: dict[str, Path], folder: Path
) -> None:
    base = torch_logits(tiny("llama"), None)
    np.testing.assert_allclose(logits(folder / "model.onnx"), base, atol=1e-5)
    for name, place in adapters.items():
        wanted = torch_logits(tiny("llama"), place)
        assert np.abs(wanted - base).max() > 0.01
        found = logits(folder / "model.onnx", folder / f"{name}.onnx_adapter")
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["prefix", "prompt", "encoder"])
def test_learned_prompts_are_caches_that_texts_begin_after(
    tiny: Callable[[str], Path], prompts: dict[str, Path], folder: Path, name: str
) -> None:
    wanted = torch_logits(tiny("llama"), prompts[name])[:, -7:]
    with np.load(folder / f"{name}.past.npz") as found:
        past = {key: np.repeat(found[key], 2, 0) for key in found.files}
    feeds = {
        "input_ids": IDS,
        "attention_mask": np.ones((2, 12), np.int64),
        "position_ids": np.tile(np.arange(5, 12), (2, 1)),
        **past,
    }
    with find_target("ort-cpu").runner(folder / "model.onnx", RunnerOptions(exact=True)) as runner:
        np.testing.assert_allclose(runner.run(feeds, ["logits"])["logits"], wanted, atol=1e-5)


def test_products_that_read_the_same_value_share_one_input(folder: Path) -> None:
    model = Model.load(folder / "model.onnx").ir
    names = [value.name for value in adapter_inputs(model) if "layers.1" in (value.name or "")]
    assert [name for name in names if name is not None and name.endswith("lora_A")] == [
        "model.layers.1.self_attn.q_proj.k_proj.v_proj.lora_A",
        "model.layers.1.self_attn.o_proj.lora_A",
        "model.layers.1.mlp.gate_proj.up_proj.lora_A",
        "model.layers.1.mlp.down_proj.lora_A",
    ]
    assert len(names) == 4 + len(ALL)


def test_quantization_leaves_adapters_alone_and_the_fusions_fire(
    folder: Path, tiny: Callable[[str], Path], adapters: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "small"
    command = ["optimize", str(folder / "model.onnx"), "--target", "ort-cpu", "--no-bench"]
    passes = "cleanup,fuse,int4:min-size=0:block=32"
    assert irc([*command, "--passes", passes, "-o", f"{out}/", "--no-cache"]) == 0
    made = Model.load(out / "model.onnx").ir
    kinds = [node.op_type for node in made.graph]
    assert kinds.count("GroupQueryAttention") == 2
    assert kinds.count("MatMulNBits") == 2 * len(ALL) + 1
    # 4 A and 7 B of each of two layers.
    assert kinds.count("MatMul") == 2 * (4 + len(ALL))
    read = reader(out)
    base, wide = (read(name) for name in (None, "wide"))
    rounding = np.linalg.norm(base - torch_logits(tiny("llama"), None))
    error = np.linalg.norm(wide - torch_logits(tiny("llama"), adapters["wide"]))
    assert error < 1.5 * rounding
    assert np.abs(wide - base).max() > 0.1


def reader(out: Path) -> Callable[[str | None], np.ndarray]:
    """Return what reads the ids in the runtime's own way, with an adapter by name."""
    from irtools.targets import begin_text, text_decoder_of

    runner = find_target("ort-cpu").runner(out / "model.onnx", RunnerOptions(threads=1))
    decoder = text_decoder_of(runner)
    assert decoder is not None

    def read(name: str | None) -> np.ndarray:
        path = None if name is None else out / f"{name}.onnx_adapter"
        runner.use_adapter(path)  # type: ignore[attr-defined]
        text = begin_text(runner, decoder, 2)
        first = text.read(IDS[:, :6])
        return np.concatenate([first, text.read(IDS[:, 6:])], axis=1)

    return read


def test_one_adapter_as_constants_is_part_of_the_artifact(
    tiny: Callable[[str], Path], adapters: dict[str, Path]
) -> None:
    options = LoadOptions(adapters=((adapters["wide"], 0.5),), adapters_as="constants")
    model = load_source(str(tiny("llama")), options)
    for target in ("ort-cpu", "openvino-cpu"):
        made = lowered(model, find_target(target))
        assert not adapter_inputs(made.ir)
        assert all(not value.is_initializer() for value in made.ir.graph.inputs)
    with find_target("openvino-cpu:stateful=false").runner(
        model, RunnerOptions(exact=True)
    ) as runner:
        np.testing.assert_allclose(read_once(runner), logits(model), atol=1e-4)
    half = load_source(str(tiny("llama")), LoadOptions(adapters=((adapters["wide"], 0.5),)))
    np.testing.assert_allclose(logits(model), logits(half), atol=1e-5)


def test_openvino_says_that_it_does_not_switch(folder: Path) -> None:
    with pytest.raises(UnsupportedError, match="--adapters-as constants"):
        lowered(Model.load(folder / "model.onnx"), find_target("openvino-cpu"))


def test_what_is_more_than_low_rank_is_merged_or_refused(
    tiny: Callable[[str], Path], tmp_path: Path, adapters: dict[str, Path]
) -> None:
    base = tiny("llama")
    dora = write_adapter(base, tmp_path / "dora", 1, target_modules=["q_proj"], use_dora=True)
    table = write_adapter(base, tmp_path / "table", 1, target_modules=["embed_tokens"])

    def refusal(*given: Path, form: Any = "inputs") -> str:
        options = LoadOptions(adapters=tuple((path, 1.0) for path in given), adapters_as=form)
        with pytest.raises(IrtoolsError) as caught:
            load_source(str(base), options)
        return str(caught.value)

    assert "is DoRA" in refusal(dora)
    assert "embed_tokens" in refusal(table)
    assert "needs --adapter" in refusal()
    assert "holds one adapter, and 2 are given" in refusal(*adapters.values(), form="constants")
    assert "two adapters are called 'wide'" in refusal(adapters["wide"], adapters["wide"])


@pytest.mark.parametrize(
    "passes",
    ["cleanup,fuse,rotate,smooth", "cleanup,fuse,prune:ratio=0.25"],
)
def test_passes_change_no_weight_in_a_way_that_adapters_do_not_know(
    folder: Path, passes: str
) -> None:
    source, adapter = Model.load(folder / "model.onnx"), folder / "wide.onnx_adapter"
    made = irtools.optimize(source, passes, target="ort-cpu", bench=None, check=False).deployed
    for one in (None, adapter):
        np.testing.assert_allclose(logits(made, one), logits(source, one), atol=1e-5)


@pytest.mark.genai
def test_genai_writes_what_we_write_with_an_adapter(folder: Path, tmp_path: Path) -> None:
    import onnxruntime_genai as genai

    from irtools.targets import begin_text, text_decoder_of

    out = tmp_path / "made"
    command = ["optimize", str(folder / "model.onnx"), "--target", "ort-cpu", "-o", f"{out}/"]
    assert irc([*command, "--passes", "cleanup,fuse", "--no-bench", "--no-check"]) == 0
    file = out / "wide.onnx_adapter"
    model = genai.Model(str(out))
    adapters = genai.Adapters(model)
    adapters.load(str(file), "wide")
    params = genai.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=9)
    generator = genai.Generator(model, params)
    generator.set_active_adapter(adapters, "wide")
    generator.append_tokens(np.array([5, 9, 30], np.int32))
    found = []
    while not generator.is_done():
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    ours: list[int] = []
    with find_target("ort-cpu").runner(out / "model.onnx", RunnerOptions(threads=1)) as runner:
        decoder = text_decoder_of(runner)
        assert decoder is not None
        runner.use_adapter(file)  # type: ignore[attr-defined]
        text, ids = begin_text(runner, decoder, 1), np.array([[5, 9, 30]])
        while len(ours) < len(found):
            ours.append(int(text.read(ids)[0, -1].argmax()))
            ids = np.array([[ours[-1]]])
    assert len(found) > 0
    assert found == ours
