"""What a release says of itself, in the formats that others read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from irtools.builds.bom import bill_of_materials
from irtools.builds.card import model_card
from irtools.builds.config import Config, read_config
from irtools.builds.inputs import Inputs
from irtools.builds.lock import Lock, LockedBuild, read_lock, write_lock
from irtools.builds.provenance import provenance
from irtools.builds.records import BuildRecord, FileRecord, Scores, read_record, record_text
from irtools.builds.summary import markdown_table, summary_rows
from irtools.errors import DataError

INPUTS = Inputs(
    model=hashlib.sha256(b"model").hexdigest(),
    data={"evaluate": "d" * 64},
    pipeline="cleanup,int8",
    target="ort-cpu:isa=avx2",
    runtime="onnxruntime 1.31.1",
    host="avx2, 2 threads",
    settings={"goals": "max-drop=1%", "measuring": {"seed": 0}},
    versions={"irtools": "0.1.0", "python": "3.11.7", "onnx": "1.23.2"},
    code="c" * 64,
)
RECORD = BuildRecord(
    name="bert/int8/cpu",
    source="bert.onnx",
    source_sha256="e" * 64,
    result_sha256="f" * 64,
    main="model.onnx",
    created="2026-01-02T03:04:05+00:00",
    inputs=INPUTS,
    pipeline="cleanup,int8",
    scores=Scores(
        original_bytes=400,
        bytes=100,
        metric="accuracy",
        original=0.9,
        value=0.89,
        low=0.87,
        high=0.91,
        samples=200,
        agreement=0.98,
        median_ms=2.0,
        original_ms=6.0,
        speedup=(3.0, 2.9, 3.1),
    ),
    interface={"inputs": ("input_ids: int64[batch, seq]",), "outputs": ("logits: float32[2]",)},
    datasets=(("test.jsonl", "d" * 64, 200),),
    task="text-classification",
    notes=("a | note",),
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "irc.toml"
    path.write_text(
        '[models.bert]\nsource = "bert.onnx"\nbase-model = "org/bert"\nlicense = "apache-2.0"\n'
        'language = ["en"]\nsummary = "Topics of news."\n[pipelines]\nint8 = "cleanup,int8"\n',
        encoding="utf-8",
    )
    return read_config(path)


def test_records_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "build.json"
    path.write_text(record_text(RECORD), encoding="utf-8")
    assert read_record(BuildRecord, path) == RECORD
    assert read_record(BuildRecord, path).inputs.key == INPUTS.key


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "is not JSON"),
        ("[]", "not a document of format 'irtools-build'"),
        ('{"format": "irtools-build", "version": 9}', "has version 9, expected 1"),
        ('{"format": "irtools-build", "version": 1}', "does not follow its format: Object missing"),
    ],
)
def test_other_documents_are_refused(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "build.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_record(BuildRecord, path)
    assert line in str(caught.value)


def test_every_input_is_in_the_key() -> None:
    changed = {
        "model": "0" * 64,
        "data": {},
        "pipeline": "cleanup",
        "target": "ort-cpu:isa=vnni",
        "runtime": "onnxruntime 1.32",
        "host": "vnni, 2 threads",
        "settings": {"goals": "max-drop=1%", "measuring": {"seed": 1}},
        "versions": {**INPUTS.versions, "onnx": "1.24"},
        "code": "0" * 64,
    }
    assert set(changed) == set(INPUTS.__struct_fields__)
    others = [msgspec.structs.replace(INPUTS, **{name: value}) for name, value in changed.items()]
    assert len({one.key for one in [INPUTS, *others]}) == len(changed) + 1
    found = [one.differences(INPUTS) for one in others]
    assert ("settings (measuring)",) in found and ("versions (onnx)",) in found
    assert ("data (evaluate)",) in found and ("pipeline",) in found


def test_a_lock_is_written_where_it_differs(tmp_path: Path) -> None:
    path = tmp_path / "irc.lock"
    lock = Lock(
        seed=3, builds={RECORD.name: LockedBuild(INPUTS, "cleanup,int8", {"model.onnx": "0" * 64})}
    )
    assert read_lock(path) is None
    assert write_lock(path, lock) and not write_lock(path, lock)
    found = read_lock(path)
    assert found is not None and found.builds[RECORD.name].inputs.differences(INPUTS) == ()


@pytest.mark.torch
def test_the_card_is_one_that_hubs_read(config: Config) -> None:
    import yaml

    card = model_card(config, "news", [RECORD])
    _, front, body = card.split("---\n", 2)
    data = yaml.safe_load(front)
    assert data["base_model"] == ["org/bert"] and data["base_model_relation"] == "quantized"
    assert data["license"] == "apache-2.0" and data["library_name"] == "onnx"
    assert data["pipeline_tag"] == "text-classification" and data["language"] == ["en"]
    [entry] = data["model-index"]
    [result] = entry["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.89, "name": "accuracy"}]
    assert "`bert`: Topics of news, made from org/bert." in body
    assert "| bert/int8/cpu | 100 B | 4.00x | accuracy 0.8900 [0.8700, 0.9100] |" in body


@pytest.mark.torch
def test_the_card_is_read_by_its_library(config: Config) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(model_card(config, "news", [RECORD]))
    assert card.data.base_model == ["org/bert"]
    [result] = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.89)
    assert result.task_type == "text-classification"


def test_where_it_comes_from(config: Config) -> None:
    files = {"bert/int8/cpu/model.onnx": FileRecord(100, "a" * 64)}
    found = provenance([RECORD], files, "b" * 64)
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert found["subject"] == [
        {"name": "bert/int8/cpu/model.onnx", "digest": {"sha256": "a" * 64}}
    ]
    definition = found["predicate"]["buildDefinition"]
    assert set(definition) == {
        "buildType",
        "externalParameters",
        "internalParameters",
        "resolvedDependencies",
    }
    digests = [d["digest"]["sha256"] for d in definition["resolvedDependencies"] if "digest" in d]
    assert digests == [INPUTS.model, "d" * 64]
    uris = [d["uri"] for d in definition["resolvedDependencies"] if "uri" in d]
    assert uris[:2] == ["pkg:pypi/irtools-compiler@0.1.0", "pkg:generic/python@3.11.7"]
    assert set(found["predicate"]["runDetails"]) == {"builder", "metadata"}
    json.dumps(found)


def _bom(config: Config) -> dict:
    return bill_of_materials(config, "news", [RECORD], ["a" * 64])


def test_the_bill_of_materials_names_model_data_and_libraries(config: Config) -> None:
    found = _bom(config)
    kinds = [part["type"] for part in found["components"]]
    assert kinds == ["machine-learning-model", "data", "library", "platform", "library"]
    model = found["components"][0]
    assert model["pedigree"]["ancestors"][0]["name"] == "org/bert"
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["value"] == "0.89"
    references = {part["bom-ref"] for part in found["components"]} | {"release"}
    for dependency in found["dependencies"]:
        assert {dependency["ref"], *dependency["dependsOn"]} <= references
    assert found == _bom(config)


@pytest.mark.cyclonedx
def test_the_bill_of_materials_follows_its_schema(config: Config) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(_bom(config))) is None
    plain = msgspec.structs.replace(
        RECORD, task=None, datasets=(), scores=Scores(original_bytes=1, bytes=1)
    )
    found = bill_of_materials(config, "news", [plain], ["a" * 64])
    assert validator.validate_str(json.dumps(found)) is None
    found["components"][0]["modelCard"]["modelParameters"]["task"] = 3
    assert validator.validate_str(json.dumps(found)) is not None


def test_columns_that_say_nothing_are_left_out() -> None:
    headings, rows = summary_rows([RECORD])
    assert headings[-1] == "faster" and rows[0][-1] == "3.00x [2.90, 3.10]"
    plain = msgspec.structs.replace(RECORD, scores=Scores(original_bytes=2, bytes=1, sqnr_db="inf"))
    headings, rows = summary_rows([plain])
    assert headings == ("build", "size", "smaller", "closeness")
    assert rows == [("bert/int8/cpu", "1 B", "2.00x", "equal")]
    assert list(markdown_table(("a", "b"), [("x|y", "1")])) == [
        "| a | b |",
        "| --- | ---: |",
        "| x\\|y | 1 |",
    ]


def test_a_name_is_as_given_else_of_the_folder(config: Config) -> None:
    from irtools.builds.release import config_digest, release_name

    assert release_name(config) == config.folder.name
    digest = config_digest(config)
    config.path.write_text(config.path.read_text() + '[release]\nname = "news"\n')
    named = read_config(config.path)
    assert release_name(named) == "news" and config_digest(named) != digest
