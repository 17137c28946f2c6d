"""Adapters are folded into the weights, or refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irtools.errors import CheckError, FileError, ModelError, UnsupportedError
from irtools.frontends.checkpoint.adapters import read_adapter
from irtools.frontends.checkpoint.weights import open_checkpoint
from irtools.sources import LoadOptions, load_source
from irtools.targets import RunnerOptions, find_target

pytestmark = [
    pytest.mark.torch,
    # What peft warns of while the adapters of these tests are made.
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]

TARGETS = ["query", "value", "intermediate.dense"]
LORA: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "lora_alpha": 6, "target_modules": TARGETS},
    "rslora": {"r": 4, "lora_alpha": 6, "target_modules": TARGETS, "use_rslora": True},
    "dora": {"r": 4, "lora_alpha": 6, "target_modules": TARGETS, "use_dora": True},
}
OTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "loha": ("LoHaConfig", {"r": 4, "alpha": 6, "target_modules": TARGETS}),
    "lokr": ("LoKrConfig", {"r": 4, "alpha": 6, "target_modules": TARGETS}),
    "oft": ("OFTConfig", {"r": 0, "oft_block_size": 8, "target_modules": TARGETS}),
}
INPUTS = {
    "input_ids": np.arange(24).reshape(2, 12) + 3,
    "attention_mask": np.ones((2, 12), np.int64),
    "token_type_ids": np.zeros((2, 12), np.int64),
}


@pytest.fixture(scope="module")
def make_adapter(
    tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return a function that writes an adapter with random weights for a tiny checkpoint."""

    def make(config: Any, base: str = "bert", seed: int = 1) -> Path:
        import torch
        from peft import get_peft_model

        folder = tmp_path_factory.mktemp("adapter")
        torch.manual_seed(seed)
        module = get_peft_model(open_checkpoint(tiny(base)).module, config)
        with torch.no_grad():
            for name, weight in module.named_parameters():
                if any(part in name for part in ("lora_B", "hada_", "lokr_", "oft_")):
                    weight.normal_(0, 0.2)
                if "ia3_" in name:
                    weight.uniform_(0.5, 2)
                if "lora_magnitude" in name:
                    weight.mul_(1.3)
        module.save_pretrained(folder)
        return folder

    return make


def lora(**config: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(**config)


def run_merged(base: Path, *adapters: tuple[Path, float]) -> np.ndarray:
    """Merge into the torch module and run it."""
    module = open_checkpoint(base).module
    for folder, weight in adapters:
        read_adapter(folder, weight).merge_into(module, lambda: {"logits": run(module)})
    return run(module).numpy()


def run(module: Any) -> Any:
    import torch

    with torch.inference_mode():
        return module(**{k: torch.from_numpy(v) for k, v in INPUTS.items()}).logits


def run_active(base: Path, folder: Path) -> np.ndarray:
    """Run torch with the adapter kept apart from the weights."""
    from peft import PeftModel

    return run(PeftModel.from_pretrained(open_checkpoint(base).module, folder).eval()).numpy()


@pytest.mark.slow
def test_the_exported_model_equals_torch_with_the_adapter(
    tiny: Callable[[str], Path], make_adapter: Callable[..., Path]
) -> None:
    folder = make_adapter(lora(**LORA["dora"]))
    model = load_source(str(tiny("bert")), LoadOptions(adapters=((folder, 1.0),)))
    with find_target("ort-cpu").runner(model, RunnerOptions(exact=True)) as runner:
        found = runner.run(INPUTS)["logits"]
    np.testing.assert_allclose(found, run_active(tiny("bert"), folder), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", LORA)
def test_merging_changes_nothing_but_the_form(
    tiny: Callable[[str], Path], make_adapter: Callable[..., Path], kind: str
) -> None:
    folder = make_adapter(lora(**LORA[kind]))
    base, active = run_merged(tiny("bert")), run_active(tiny("bert"), folder)
    assert np.abs(active - base).max() > 0.01
    np.testing.assert_allclose(
        run_merged(tiny("bert"), (folder, 1.0)), active, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", OTHER)
def test_other_forms_of_weights_merge(
    tiny: Callable[[str], Path], make_adapter: Callable[..., Path], kind: str
) -> None:
    import peft

    name, config = OTHER[kind]
    folder = make_adapter(getattr(peft, name)(**config))
    base, active = run_merged(tiny("bert")), run_active(tiny("bert"), folder)
    assert np.abs(active - base).max() > 0.01
    np.testing.assert_allclose(run_merged(tiny("bert"), (folder, 1.0)), active, atol=1e-5)


def test_ia3_merges(tiny: Callable[[str], Path], make_adapter: Callable[..., Path]) -> None:
    from peft import IA3Config

    targets = ["key", "value", "output.dense"]
    folder = make_adapter(IA3Config(target_modules=targets, feedforward_modules=["output.dense"]))
    active = run_active(tiny("bert"), folder)
    found = run_merged(tiny("bert"), (folder, 1.0))
    np.testing.assert_allclose(found, active, rtol=1e-4, atol=1e-5)


def test_several_adapters_add_up_with_their_factors(
    tiny: Callable[[str], Path], make_adapter: Callable[..., Path]
) -> None:
    import torch

    folders = [make_adapter(lora(**LORA["lora"]), seed=seed) for seed in (1, 2)]
    module = open_checkpoint(tiny("bert")).module
    for folder, factor in zip(folders, (0.5, -0.25), strict=True):
        adapter = read_adapter(folder)
        with torch.no_grad():
            for name, weight in module.named_parameters():
                stem = f"base_model.model.{name.removesuffix('.weight')}"
                if f"{stem}.lora_A.weight" in adapter.tensors:
                    a, b = (adapter.tensors[f"{stem}.lora_{x}.weight"] for x in "AB")
                    weight += factor * 6 / 4 * (b @ a)
    wanted = run(module).numpy()
    found = run_merged(tiny("bert"), (folders[0], 0.5), (folders[1], -0.25))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_an_adapter_may_bring_the_head(
    tiny: Callable[[str], Path], make_adapter: Callable[..., Path]
) -> None:
    from peft import TaskType

    folder = make_adapter(lora(**LORA["lora"], task_type=TaskType.SEQ_CLS))
    adapter = read_adapter(folder)
    assert adapter.task == "text-classification"
    assert adapter.provided == {"classifier.weight", "classifier.bias"}
    assert adapter.classes == 2
    base = open_checkpoint(
        tiny("bert-mlm"),
        task=adapter.task,
        provided=adapter.provided | {"bert.pooler.dense.weight", "bert.pooler.dense.bias"},
        classes=2,
    )
    adapter.merge_into(base.module, lambda: {"logits": run(base.module)})
    wanted = adapter.tensors["base_model.model.classifier.weight"].numpy()
    np.testing.assert_array_equal(base.module.classifier.weight.detach().numpy(), wanted)


def test_adapter_of_another_width_is_refused_with_both_shapes(
    tiny: Callable[[str], Path], make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = make_adapter(lora(**LORA["lora"]))
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in tensors if "lora_A" in name)
    tensors[name] = torch.zeros(4, 40)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text((folder / "adapter_config.json").read_text())
    with pytest.raises(ModelError, match=r"another base.*lora_A\.weight.*\[4, 40\].*\[4, 32\]"):
        run_merged(tiny("bert"), (tmp_path, 1.0))


@pytest.mark.parametrize("base", ["llama", "vit"])
def test_adapter_of_another_family_is_refused_by_name(
    tiny: Callable[[str], Path], make_adapter: Callable[..., Path], base: str
) -> None:
    folder = make_adapter(lora(**LORA["lora"]))
    module = open_checkpoint(tiny(base)).module
    with pytest.raises(ModelError, match=r"does not fit|another base"):
        read_adapter(folder).merge_into(module, dict)


def test_prompts_are_refused_with_the_reason(
    tiny: Callable[[str], Path], make_adapter: Callable[..., Path]
) -> None:
    from peft import PromptTuningConfig, TaskType

    folder = make_adapter(
        PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3), base="llama"
    )
    with pytest.raises(UnsupportedError, match=r"PROMPT_TUNING adds learned tokens"):
        read_adapter(folder)


def test_bottleneck_adapters_are_refused_with_the_reason(tmp_path: Path) -> None:
    config = {"config": {"reduction_factor": 16, "non_linearity": "relu"}, "hidden_size": 32}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match="non-linearity"):
        read_adapter(tmp_path)


def test_a_factor_needs_something_that_is_added(
    tiny: Callable[[str], Path], make_adapter: Callable[..., Path]
) -> None:
    folder = make_adapter(lora(**LORA["dora"]))
    with pytest.raises(UnsupportedError, match=r"DoRA.*0\.5"):
        run_merged(tiny("bert"), (folder, 0.5))


def test_a_merge_into_shared_weights_names_both_modules(
    tiny: Callable[[str], Path], make_adapter: Callable[..., Path]
) -> None:
    # The output head of this base is its embedding table, which the adapter must not change.
    folder = make_adapter(lora(r=4, target_modules=["lm_head"]), base="llama-tied")
    module = open_checkpoint(tiny("llama-tied")).module
    ids = {k: v for k, v in INPUTS.items() if k != "token_type_ids"}

    def logits() -> dict[str, Any]:
        import torch

        with torch.inference_mode():
            return {"logits": module(**{k: torch.from_numpy(v) for k, v in ids.items()}).logits}

    with pytest.raises(
        CheckError, match=r"changes 'lm_head', whose weight '[a-z.]*embed_tokens' shares"
    ):
        read_adapter(folder).merge_into(module, logits)


def test_bad_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no adapter folder"):
        read_adapter(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ModelError, match="has no weights"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\0" * 50)
    with pytest.raises(ModelError, match="cannot be read"):
        read_adapter(tmp_path)
