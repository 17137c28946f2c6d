"""Tasks of lm-evaluation-harness as metrics: of documents on this machine, equal to lm_eval's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from irtools.cli.main import run
from irtools.data import Dataset, load_dataset
from irtools.errors import DataError, FileError, UnknownNameError, UnsupportedError, UsageError
from irtools.metrics import data_of_metrics, evaluate, load_metric
from irtools.model import Model
from irtools.targets import find_target

pytestmark = pytest.mark.lm_eval

DOCUMENTS = [
    {"question": "Which animal barks?", "choices": ["cat", "dog", "hen", "fish"], "answer": 1},
    {"question": "What is the capital of Italy?", "choices": ["Paris", "Rome"], "answer": 1},
    {"question": "What do bees make?", "choices": ["honey", "milk", "bread"], "answer": 0},
    {"question": "How many days?", "choices": ["five", "seven", "twelve", "two"], "answer": 1},
    {"question": "What colour is grass?", "choices": ["green", "blue", "red"], "answer": 0},
]
CHOICE = """
task: facts
dataset_path: json
dataset_kwargs: {data_files: {test: facts.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}} "
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
SHOTS = CHOICE.replace("task: facts", "task: shots") + "num_fewshot: 1\nfewshot_split: test\n"
LAST_WORD = """
task: last
dataset_path: json
dataset_kwargs: {data_files: {test: facts.jsonl}}
test_split: test
output_type: loglikelihood
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
ROLLING = """
task: texts
dataset_path: json
dataset_kwargs: {data_files: {test: facts.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{question}} {{question}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""
LETTERS = [chr(code) for code in range(32, 127)] + ["\n"]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder of tasks and their documents."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    lines = [json.dumps(document) for document in DOCUMENTS]
    (folder / "facts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, text in (
        ("facts", CHOICE),
        ("shots", SHOTS),
        ("last", LAST_WORD),
        ("texts", ROLLING),
    ):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def make_tokenizer() -> Any:
    """Return a tokenizer of letters that puts <s> in front of a text."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    words = ["<pad>", "<s>", "</s>", *LETTERS]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    made.add_special_tokens(["<pad>", "<s>", "</s>"])
    return made


@pytest.fixture
def bigram(tmp_path: Path) -> Path:
    """A model that scores the next letter by the last one alone."""
    folder = tmp_path / "bigram"
    folder.mkdir()
    size = len(LETTERS) + 3
    table = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    text = (
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        f"bigram (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask) => "
        f"(float[batch, sequence, {size}] logits)\n{{ logits = Gather (table, input_ids) }}"
    )
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    onnx.save(proto, folder / "model.onnx")
    make_tokenizer().save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 64}))
    return folder / "model.onnx"


def score(path: Path, task: str) -> Any:
    model = Model.load(path)
    metric = load_metric(task)
    data = load_dataset(task, model)
    with find_target("ort-cpu").runner(model) as runner:
        return evaluate(runner, data, metric)


def test_a_sample_is_a_document_with_its_choices(tasks: Path, bigram: Path) -> None:
    data = load_dataset(f"lm-eval:{tasks}/facts", Model.load(bigram))
    assert len(data) == len(DOCUMENTS)
    assert [len(ids) for ids in data.feeds["input_ids"]] == [4, 2, 3, 4, 3]
    first = data.feeds["input_ids"][0]
    # <s>, the question, and a choice without its last letter; the space goes to the choice.
    assert first[0, 0] == 1 and first[0, 1:6].tolist() == [LETTERS.index(c) + 3 for c in "Which"]
    scored = data.labels[0, 1, 3:]  # type: ignore[index]
    assert [LETTERS[token - 3] for token in scored[scored >= 0]] == list("  dog")


def test_the_likeliest_choice_is_counted_by_hand(tasks: Path, bigram: Path) -> None:
    found = score(bigram, f"lm-eval:{tasks}/facts")
    table = onnx.numpy_helper.to_array(onnx.load(bigram).graph.initializer[0]).astype(np.float64)
    likely = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
    hits = []
    for document in DOCUMENTS:
        totals = []
        for choice in document["choices"]:  # type: ignore[attr-defined]
            tokens = [LETTERS.index(c) + 3 for c in f"?  {choice}"]
            totals.append(sum(likely[a, b] for a, b in pairwise(tokens)))
        hits.append(int(np.argmax(totals)) == document["answer"])
    assert found.value == np.mean(hits)
    assert found.samples == len(DOCUMENTS)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_documents_of_another_task_are_refused(tasks: Path, bigram: Path) -> None:
    other = load_dataset(f"lm-eval:{tasks}/last", Model.load(bigram))
    other.labels[:, :, 1] += 1  # type: ignore[index]
    assert not load_metric(f"lm-eval:{tasks}/facts").takes(other.labels)  # type: ignore[attr-defined]
    own = load_dataset(f"lm-eval:{tasks}/facts", Model.load(bigram))
    assert load_metric(f"lm-eval:{tasks}/facts").takes(own.labels)  # type: ignore[attr-defined]


def test_a_metric_of_a_task_brings_its_documents(tasks: Path) -> None:
    task = f"lm-eval:{tasks}/facts"
    assert data_of_metrics((f"{task}:acc_norm", task), None) == task
    assert data_of_metrics(("accuracy",), "test.npz") is None
    assert data_of_metrics((task,), Dataset({}, source=task)) == task
    for metrics, given in (
        ((task,), "test.npz"),
        ((task, f"lm-eval:{tasks}/last"), None),
        ((task, "perplexity"), None),
    ):
        with pytest.raises(UsageError, match="one task at a time"):
            data_of_metrics(metrics, given)


def _edited(folder: Path, old: str, new: str) -> str:
    assert old in CHOICE
    path = folder / "edited.yaml"
    path.write_text(CHOICE.replace(old, new), encoding="utf-8")
    return f"lm-eval:{path}"


@pytest.mark.parametrize(
    ("old", "new", "kind", "said"),
    [
        ("facts.jsonl", "absent.jsonl", FileError, "there is no file absent.jsonl"),
        ("dataset_path: json", "dataset_path: cais/mmlu", UnsupportedError, "reads cais/mmlu from"),
        ("dataset_kwargs: {data_files: {test: facts.jsonl}}", "", UnsupportedError, "from a hub"),
        ("multiple_choice", "generate_until", UnsupportedError, "asks for generate_until"),
        ("metric: acc,", "metric: bleurt,", UnsupportedError, "fetch from a hub"),
        ("test_split: test", "", DataError, "names no test_split"),
        ("test_split: test", "test_split: dev", DataError, "KeyError"),
        ("{{question}}", "{{question", DataError, "fails: TemplateSyntaxError"),
        ("task: facts", "task: [facts, last]", UnsupportedError, "group of tasks"),
        ("task: facts", "tusk: facts", DataError, "has no entry 'task'"),
        ("task: facts", "task: {", DataError, "cannot be read"),
        ("- {metric: acc, aggregation: mean, higher_is_better: true}", "- acc", DataError, "'acc'"),
        ("{data_files: {test: facts.jsonl}}", "[1]", DataError, "as dataset_kwargs"),
        ("{test: facts.jsonl}", "{test: 3}", DataError, "has 3 among its data_files"),
    ],
)
def test_tasks_that_cannot_be_scored(
    tasks: Path, old: str, new: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        load_metric(_edited(tasks, old, new))
    assert "\n" not in str(caught.value)


def test_names_that_are_no_task(tasks: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        load_metric("lm-eval:hellaswag")
    with pytest.raises(UnknownNameError, match="did you mean 'facts'"):
        load_metric(f"lm-eval:{tasks}/fact")
    with pytest.raises(DataError, match="has several: facts, last, shots, texts"):
        load_metric(f"lm-eval:{tasks}")
    with pytest.raises(UnknownNameError, match="has no metric 'f1'"):
        load_metric(f"lm-eval:{tasks}/facts:f1")


def test_a_model_of_the_last_logits_is_refused(tasks: Path, bigram: Path) -> None:
    task = f"lm-eval:{tasks}/facts"
    data, metric = load_dataset(task, Model.load(bigram)), load_metric(task)
    feeds = data.feeds_of(np.array([0]))
    rows = len(feeds["input_ids"])
    logits = {"logits": np.zeros((rows, 1, 98), np.float32)}
    with pytest.raises(DataError, match="the last logits alone"):
        metric.per_sample(logits, data.labels[:1])  # type: ignore[attr-defined,index]


def test_reading_a_task_leaves_the_libraries_as_they_were(tasks: Path) -> None:
    import datasets

    before = datasets.config.HF_HUB_OFFLINE, logging.getLogger("lm_eval").level
    load_metric(f"lm-eval:{tasks}/facts")
    assert (datasets.config.HF_HUB_OFFLINE, logging.getLogger("lm_eval").level) == before


def test_optimize_judges_by_a_task(
    tasks: Path, bigram: Path, tmp_path: Path, cheap_jobs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    task = f"lm-eval:{tasks}/facts"
    given = [str(bigram), "--passes", "cleanup,fp16", "--metric", task, "--no-bench"]
    assert run(["optimize", *given, "--json", str(report), "-o", str(tmp_path / "o.onnx")]) == 0
    figures = json.loads(report.read_text())
    assert f'"{task}"' in json.dumps(figures)
    assert f"{task} on {len(DOCUMENTS)} samples" in capsys.readouterr().err.replace("\n", "")
    capsys.readouterr()
    code = run(["optimize", *given, "--evaluate", "t.npz", "-o", str(tmp_path / "p.onnx")])
    assert code == 2 and not (tmp_path / "p.onnx").exists()
    assert "one task at a time" in capsys.readouterr().err


def test_a_decoder_with_a_cache_is_judged_and_writes(
    tasks: Path,
    tmp_path: Path,
    talks: Callable[..., Path],
    cached_decoder: Model,
    cheap_jobs: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, words = talks(tmp_path / "d", cached_decoder), [f"w{n}" for n in range(3, 61)]
    documents = [
        {"question": " ".join(words[n : n + 5]), "choices": words[n + 5 : n + 8], "answer": n % 3}
        for n in range(20)
    ]
    lines = "\n".join(json.dumps(document) for document in documents)
    (tasks / "facts.jsonl").write_text(lines, encoding="utf-8")
    given = ["--metric", f"lm-eval:{tasks}/facts", "--max-drop", "60%", "--no-bench"]
    model = str(folder / "model.onnx")
    passes = ["--passes", "int8:min-size=1", "-o", str(tmp_path / "o/")]
    assert run(["optimize", model, *passes, *given]) == 0
    shown = capsys.readouterr().err
    assert "chosen by 10 samples" in shown and "quoted on the other 10" in shown
    assert "goal max-drop=60%: kept" in shown
    assert " text " in shown  # The column of prompts that are continued as before.
    times = ["--seq", "8", "--past", "8", "--max-seconds", "1", "--rounds", "3"]
    assert run(["bench", model, str(tmp_path / "o"), *given[:2], *times]) == 0
    assert "o 1/20" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("task", ["facts", "shots", "last", "texts"])
def test_figures_equal_those_of_lm_eval(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """A random Llama with a cache, exported, against HFLM on the module itself."""
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from irtools.sources import LoadOptions, load_source

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    module = LlamaForCausalLM(LlamaConfig(vocab_size=len(LETTERS) + 3, **sizes, **heads)).eval()
    # Logits far enough apart that no choice hangs on rounding.
    module.lm_head.weight.data *= 20
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(), bos_token="<s>", eos_token="</s>"
    )
    folder = tmp_path / "llama"
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    monkeypatch.chdir(tasks)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    wanted = simple_evaluate(
        HFLM(pretrained=module, tokenizer=tokenizer, batch_size=2),
        tasks=[task],
        task_manager=manager,
        bootstrap_iters=0,
    )["results"][task]
    model = load_source(str(folder), LoadOptions(with_past=True))
    data = load_dataset(f"lm-eval:{task}.yaml", model)
    figures = [key.removesuffix(",none") for key in wanted if key.endswith(",none")]
    figures = [one for one in figures if not one.endswith("_stderr")]
    assert figures
    with find_target("ort-cpu").runner(model) as runner:
        for name in figures:
            found = evaluate(runner, data, load_metric(f"lm-eval:{task}.yaml:{name}"))
            assert found.value == pytest.approx(wanted[f"{name},none"], rel=1e-5), name
