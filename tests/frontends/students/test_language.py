"""Causal language models, fine-tuned on texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irtools.cli.main import run
from irtools.passes.quantization.ranges.grids import find_grid
from irtools.plugins import NullProgress
from irtools.students import AdapterSettings, FinetuneRequest, TrainingSettings, find_trainer

from .conftest import _write_tokenizer

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

TASK = "language-model"


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with tied tables."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("decoder")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    _write_tokenizer(folder)
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> tuple[str, str]:
    """Texts in which each word follows from the one before."""
    paths = []
    for name, lengths in (("train", range(3, 9)), ("test", range(4, 8))):
        words = ["the", "new", "report", "said", "old", "market", "will"] * 3
        rows = [
            {"text": " ".join(words[n % 7 : n % 7 + size])} for n in range(7) for size in lengths
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths.append(str(path))
    return paths[0], paths[1]


@pytest.mark.parametrize("quantize", [None, "int4"])
def test_it_learns_what_follows(decoder: Path, texts, tmp_path: Path, quantize) -> None:
    from irtools.frontends.students.networks.checkpoints import load_network

    training = TrainingSettings(epochs=12, batch=8, learning_rate=5e-3, quantize=quantize)
    request = FinetuneRequest(str(decoder), *texts, tmp_path / "work", task=TASK, training=training)
    found = find_trainer().finetune(request, NullProgress())
    (base,) = found.stages
    assert base.evaluation.name == "perplexity" and base.evaluation.value > 20
    assert found.result.evaluation.value < 3
    network = load_network(found.result.folder)
    assert network.lm_head.weight is network.model.embed_tokens.weight
    grid = find_grid(network.model.layers[0].mlp.up_proj.weight.detach().numpy(), 0)
    assert (grid is not None) == (quantize == "int4")
    assert find_grid(network.lm_head.weight.detach().numpy(), 0) is None


@pytest.mark.parametrize("kind", ["lora", pytest.param("qlora", marks=pytest.mark.slow)])
def test_an_adapter_learns_what_follows(decoder: Path, texts, tmp_path: Path, kind: str) -> None:
    """The merged network is the base but for its linear layers, and its tables stay one."""
    from irtools.frontends.students.networks.checkpoints import load_network

    training = TrainingSettings(epochs=12, batch=8, learning_rate=2e-2)
    settings = AdapterSettings(kind=kind, rank=8)
    request = FinetuneRequest(
        str(decoder), *texts, tmp_path / "work", settings, task=TASK, training=training
    )
    found = find_trainer().finetune(request, NullProgress())
    base, on_its_base = found.stages[:2]
    assert found.result.evaluation.value < 0.8 * base.evaluation.value
    assert on_its_base.evaluation.value == pytest.approx(found.result.evaluation.value, rel=1e-3)
    assert found.figures["merge-relative-error"] < 1e-5
    before, after = load_network(decoder), load_network(found.result.folder)
    assert after.lm_head.weight is after.model.embed_tokens.weight
    assert torch.equal(before.lm_head.weight, after.lm_head.weight)
    assert (found.adapter / "adapter_model.safetensors").exists()
    assert json.loads((found.adapter / "adapter_config.json").read_text())["task_type"] == (
        "CAUSAL_LM"
    )


def test_the_loss_is_that_of_the_library(decoder: Path) -> None:
    """Padding, cut or not, and the first token of a text are not guessed."""
    from irtools.frontends.students.networks.checkpoints import load_network
    from irtools.frontends.students.training.losses import hard_loss
    from irtools.metrics import Perplexity

    network = load_network(decoder)
    ids = torch.randint(4, 24, (3, 7))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    feeds = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    labels = torch.from_numpy(Perplexity().derive_labels(feeds))
    known = network(input_ids=ids, attention_mask=mask, labels=labels)
    longer = torch.nn.functional.pad(labels, (0, 2), value=-100)
    torch.testing.assert_close(hard_loss(known.logits, longer, TASK), known.loss)


def test_what_does_not_fit_is_refused(
    decoder: Path, teacher: Path, texts, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--train", texts[0], "--evaluate", texts[1], "--task", TASK, "-o", "out"]
    assert run(["finetune", str(teacher), *given]) == 2
    assert (
        "is a BertForSequenceClassification, and no causal language model"
        in capsys.readouterr().err
    )
    assert run(["finetune", str(decoder), *given, "--metric", "accuracy"]) == 2
    assert "is trained for perplexity: leave out --metric accuracy" in capsys.readouterr().err
    assert run(["finetune", str(decoder), *given, "--adapter", "bitfit"]) == 2
    assert "have no biases, which are all that bitfit trains" in capsys.readouterr().err
    assert run(["finetune", str(decoder), *given, "--adapter", "lora", "--modules", "fc"]) == 2
    assert "no linear layer of LlamaForCausalLM is called fc" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
