"""Files, folders and functions as data."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from irtools.data import Dataset, DataSettings, load_dataset
from irtools.data.text import number_classes
from irtools.errors import DataError, FileError, IrtoolsError, UnsupportedError, UsageError
from irtools.model import Model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "a", "mat"]


def text_model(length: int | str = "sequence", extra: str = "") -> ir.Model:
    tokens = f"int64[batch, {length}]"
    return ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g ({tokens} input_ids, {tokens} attention_mask, {tokens} token_type_ids {extra})
            => (float[batch, {length}, 2] y) <float[10, 2] table> {{
          y = Gather (table, input_ids)
        }}"""
    )


def image_model(shape: str = "batch,3,8,8") -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[{shape}] pixel_values) '
        f"=> (float[{shape}] y) {{ y = Relu (pixel_values) }}"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a BERT-like tokenizer of ten words."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


class TestNpz:
    def test_inputs_and_labels(self, tmp_path: Path) -> None:
        path = tmp_path / "d.npz"
        np.savez(path, pixel_values=np.ones((2, 3, 8, 8), np.float32), labels=[1, 0])
        data = load_dataset(str(path), image_model())
        assert data.source == "d.npz"
        assert len(data.digest) == 64
        assert data.labels is not None
        assert data.labels.tolist() == [1, 0]

    def test_pickles_are_never_opened(self, tmp_path: Path) -> None:
        path = tmp_path / "d.npz"
        np.savez(path, pixel_values=np.array([{"a": 1}], dtype=object))
        with pytest.raises(DataError, match=r"not an \.npz file of plain arrays"):
            load_dataset(str(path), image_model())

    @pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken", b"\x93NUMPY\x01\x00"])
    def test_broken_files(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "d.npz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"d\.npz is not an \.npz file"):
            load_dataset(str(path), image_model())

    def test_truncated_file(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, pixel_values=np.ones((2, 3, 8, 8), np.float32))
        path = tmp_path / "d.npz"
        path.write_bytes(buffer.getvalue()[:-200])
        with pytest.raises(DataError, match=r"not an \.npz file"):
            load_dataset(str(path), image_model())

    def test_single_numbers(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", pixel_values=1.0)
        with pytest.raises(DataError, match="'pixel_values' is a single number"):
            load_dataset(str(tmp_path / "d.npz"), image_model())


BAD_LINES = {
    "not JSON": ('{"text": "cat"}\n{"text": \n', r"d.jsonl:2 is not JSON"),
    "no object": ("[1]\n", r"d.jsonl:1 is not an object"),
    "no text column": ('{"a": "cat", "b": 1}\n', r"columns a, b, and none of them is called"),
    "number for text": ('{"text": 3}\n', r"d.jsonl:1: column 'text' should hold text, found 3"),
    "missing text": ('{"text": "a"}\n{"x": "a"}\n', r"d.jsonl:2: column 'text'.*no such field"),
    "missing label": (
        '{"text": "a", "label": 1}\n{"text": "a"}\n',
        r"d.jsonl:2: no label column 'label'",
    ),
    "null label": ('{"text": "a", "label": null}\n', r"d.jsonl:1: no label"),
    "mixed labels": (
        '{"text": "a", "label": [1]}\n{"text": "a", "label": 1}\n',
        r"d.jsonl:1: a list of labels",
    ),
    "empty": ("\n\n", r"d.jsonl holds no rows"),
    "nesting": ("[" * 100_000, r"d.jsonl:1 is not JSON"),
}


class TestText:
    def test_rows_are_tokenized_padded_and_labelled(self, folder: Path) -> None:
        spec = write(
            folder / "d.jsonl",
            {"text": "the cat sat", "label": 1},
            {"text": "dog", "label": 0},
        )
        data = load_dataset(spec, text_model())
        assert data.feeds["input_ids"].tolist() == [[2, 4, 5, 6, 3], [2, 1, 3, 0, 0]]
        assert data.feeds["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
        assert data.labels is not None
        assert data.labels.tolist() == [1, 0]
        assert data.notes == ()

    def test_pairs_and_named_columns(self, folder: Path) -> None:
        (folder / "d.tsv").write_text("id\ta\tb\tkind\n1\tthe cat\tsat\tyes\n2\ton\ta mat\tno\n")
        settings = DataSettings(text_columns=("a", "b"), label_column="kind")
        data = load_dataset(str(folder / "d.tsv"), text_model(), settings)
        assert data.feeds["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]
        assert data.labels is not None
        assert data.labels.tolist() == [1, 0]
        assert "numbered by name: 0=no, 1=yes" in data.notes[0]

    def test_class_names_come_from_the_config(self, folder: Path) -> None:
        names = {"0": "yes", "1": "no"}
        (folder / "config.json").write_text(json.dumps({"id2label": names}))
        (folder / "d.csv").write_text("text,label\ncat,no\nmat,yes\n")
        data = load_dataset(str(folder / "d.csv"), text_model())
        assert data.labels is not None
        assert data.labels.tolist() == [1, 0]
        (folder / "d.csv").write_text("text,label\ncat,maybe\n")
        with pytest.raises(DataError, match=r"d\.csv:2: unknown label 'maybe'; known are yes, no"):
            load_dataset(str(folder / "d.csv"), text_model())

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            ([[0, 2], [], [1]], [[1, 0, 1], [0, 0, 0], [0, 1, 0]]),
            ([[1, 0, 1], [0, 0, 0], [0, 1, 1]], [[1, 0, 1], [0, 0, 0], [0, 1, 1]]),
            ([["b"], ["a", "b"], []], [[0, 1], [1, 1], [0, 0]]),
            ([0.5, 1, 2], [0.5, 1.0, 2.0]),
            ([True, False, True], [1, 0, 1]),
        ],
        ids=["numbers", "flags", "names", "regression", "booleans"],
    )
    def test_kinds_of_labels(self, folder: Path, labels: list, expected: list) -> None:
        spec = write(folder / "d.jsonl", *({"text": "cat", "label": v} for v in labels))
        data = load_dataset(spec, text_model())
        assert data.labels is not None
        assert data.labels.tolist() == expected

    def test_length_limits(self, folder: Path) -> None:
        spec = write(folder / "d.jsonl", {"text": "the cat sat on a mat"})
        cut = load_dataset(spec, text_model(), DataSettings(max_length=4))
        assert cut.feeds["input_ids"].tolist() == [[2, 4, 5, 3]]
        assert load_dataset(spec, text_model(12)).feeds["input_ids"].shape == (1, 12)
        (folder / "tokenizer_config.json").write_text('{"model_max_length": 5}')
        assert load_dataset(spec, text_model()).feeds["input_ids"].shape == (1, 5)

    def test_left_padding(self, folder: Path) -> None:
        (folder / "tokenizer_config.json").write_text('{"padding_side": "left"}')
        spec = write(folder / "d.jsonl", {"text": "the cat"}, {"text": "mat"})
        data = load_dataset(spec, text_model())
        assert data.feeds["attention_mask"].tolist() == [[1] * 4, [0, 1, 1, 1]]

    def test_tokenizer_beside_the_model(self, folder: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "data"
        elsewhere.mkdir()
        spec = write(elsewhere / "d.jsonl", {"text": "cat"})
        with pytest.raises(DataError, match="text needs a tokenizer, and there is none at"):
            load_dataset(spec, text_model())
        model = Model(text_model(), folder / "model.onnx")
        assert load_dataset(spec, model).feeds["input_ids"].tolist() == [[2, 5, 3]]
        given = DataSettings(tokenizer=folder)
        assert len(load_dataset(spec, text_model(), given)) == 1

    def test_the_models_own_tokenizer_comes_before_that_of_the_data(self, folder: Path) -> None:
        elsewhere = folder / "data"
        elsewhere.mkdir()
        (elsewhere / "tokenizer.json").write_text("of another model")
        spec = write(elsewhere / "d.jsonl", {"text": "cat"})
        model = Model(text_model(), folder / "model.onnx")
        assert load_dataset(spec, model).feeds["input_ids"].tolist() == [[2, 5, 3]]

    def test_the_model_numbers_its_own_classes(self, folder: Path) -> None:
        elsewhere = folder / "data"
        elsewhere.mkdir()
        (elsewhere / "classes.json").write_text('["no", "yes", "maybe"]')
        spec = write(elsewhere / "d.jsonl", {"text": "cat", "label": ["yes"]})
        model = Model(text_model(), folder / "model.onnx")

        def labels_where_config_says(*names: str) -> list[list[int]]:
            config = {"id2label": {str(number): name for number, name in enumerate(names)}}
            (folder / "config.json").write_text(json.dumps(config))
            labels = load_dataset(spec, model).labels
            assert labels is not None
            return labels.tolist()

        assert labels_where_config_says("yes", "no", "maybe") == [[1, 0, 0]]
        assert labels_where_config_says("LABEL_0", "LABEL_1", "LABEL_2") == [[0, 1, 0]]

    def test_classes_of_a_task_are_numbered_as_the_data_says(self, folder: Path) -> None:
        spec = write(folder / "d.jsonl", *({"text": "cat", "label": x} for x in ("b", "a")))
        assert number_classes(Path(spec)) == {"a": 0, "b": 1}
        (folder / "classes.json").write_text('["c", "b", "a"]')
        assert number_classes(Path(spec)) == {"c": 0, "b": 1, "a": 2}
        (folder / "classes.json").write_text('["x", "y"]')
        assert number_classes(Path(spec)) == {"a": 0, "b": 1}

    @pytest.mark.parametrize("case", BAD_LINES)
    def test_bad_lines_are_named(self, folder: Path, case: str) -> None:
        content, message = BAD_LINES[case]
        (folder / "d.jsonl").write_text(content)
        with pytest.raises(DataError, match=message):
            load_dataset(str(folder / "d.jsonl"), text_model())

    def test_bad_tables(self, folder: Path) -> None:
        path = folder / "d.csv"
        path.write_text("text,label\ncat,1\nmat\n")
        with pytest.raises(DataError, match=r"d.csv:3 has 1 field, the header has 2"):
            load_dataset(str(path), text_model())
        path.write_bytes(b"text,label\n\xff\xfe,1\n")
        with pytest.raises(DataError, match="not UTF-8"):
            load_dataset(str(path), text_model())

    def test_inputs_that_text_does_not_give(self, folder: Path) -> None:
        spec = write(folder / "d.jsonl", {"text": "cat"})
        with pytest.raises(DataError, match="the model also takes bbox"):
            load_dataset(spec, text_model(extra=", int64[batch, sequence, 4] bbox"))

    def test_broken_tokenizer(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")
        with pytest.raises(DataError, match=r"is not a tokenizer\.json"):
            load_dataset(write(folder / "d.jsonl", {"text": "cat"}), text_model())

    def test_parquet_without_pyarrow(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        (folder / "d.parquet").write_bytes(b"PAR1")
        with pytest.raises(UnsupportedError, match="needs pyarrow"):
            load_dataset(str(folder / "d.parquet"), text_model())


class TestImages:
    @pytest.fixture
    def images(self, tmp_path: Path) -> Path:
        for name, value in (("cat/1.png", 255), ("cat/2.png", 0), ("ant/1.png", 128)):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 10), (value, value, value)).save(path)
        return tmp_path / "images"

    def test_classes_are_folders_and_pixels_are_normalised(self, images: Path) -> None:
        data = load_dataset(str(images), image_model())
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 1]
        white = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
        np.testing.assert_allclose(data.feeds["pixel_values"][1, :, 4, 4], white, rtol=1e-5)
        assert "as ImageNet models take them" in data.notes[0]
        assert "0=ant, 1=cat" in data.notes[1]

    @pytest.mark.parametrize("shape", ["3,8,8", "8,8,3", "8,h,1"])
    def test_models_of_one_image_get_one_at_a_time(self, images: Path, shape: str) -> None:
        data = load_dataset(str(images), image_model(shape))
        given = [feeds["pixel_values"].shape for feeds in data.batches(4)]
        height = 224 if "h" in shape else 8
        assert given == 3 * [tuple(int(n.replace("h", str(height))) for n in shape.split(","))]
        with pytest.raises(DataError, match=r"or \[C,H,W\] of one image"):
            load_dataset(str(images), image_model("batch,8,8"))

    def test_processor_config_is_followed(self, images: Path) -> None:
        (images / "preprocessor_config.json").write_text(
            json.dumps(
                {
                    "size": {"height": 8, "width": 8},
                    "image_mean": [0.5] * 3,
                    "image_std": [0.5] * 3,
                    "rescale_factor": 1 / 255,
                }
            )
        )
        (images / "config.json").write_text(json.dumps({"id2label": {"0": "cat", "1": "ant"}}))
        data = load_dataset(str(images), image_model())
        assert data.notes == ()
        assert data.labels is not None
        assert data.labels.tolist() == [1, 0, 0]
        np.testing.assert_allclose(data.feeds["pixel_values"][1], 1.0, rtol=1e-6)

    def test_a_folder_of_no_class_names_those_that_are_known(self, images: Path) -> None:
        (images / "config.json").write_text(json.dumps({"id2label": {"0": "cat", "1": "dog"}}))
        with pytest.raises(
            DataError, match="'ant' is not one of the model's classes; known are cat, dog"
        ):
            load_dataset(str(images), image_model())

    def test_flat_folder_and_channels_last_and_grey(self, images: Path) -> None:
        flat = load_dataset(str(images / "cat"), image_model("batch,8,8,1"))
        assert flat.labels is None
        assert flat.feeds["pixel_values"].shape == (2, 8, 8, 1)

    def test_dynamic_size_is_224(self, images: Path) -> None:
        data = load_dataset(str(images), image_model("batch,3,height,width"))
        assert data.feeds["pixel_values"].shape == (3, 3, 224, 224)

    def test_bad_folders(self, images: Path, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        with pytest.raises(DataError, match="holds no images"):
            load_dataset(str(empty), image_model())
        (images / "ant" / "2.png").write_bytes(b"not an image")
        with pytest.raises(DataError, match="cannot read image"):
            load_dataset(str(images), image_model())
        with pytest.raises(DataError, match=r"feeds one input \[N,C,H,W\], or"):
            load_dataset(str(images), text_model())


class TestFunctions:
    @pytest.fixture(autouse=True)
    def module(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        module = ModuleType("my_data")
        ones = np.ones((2, 3, 8, 8), np.float32)
        module.whole = lambda: Dataset({"pixel_values": ones})
        module.mapping = lambda: {"pixel_values": ones, "labels": [0, 1]}
        module.batches = lambda: ({"pixel_values": ones * i, "labels": [i, i]} for i in range(3))
        module.wrong = lambda: 3
        module.uneven = lambda: [{"pixel_values": ones}, {"other": ones}]
        module.empty = list
        module.number = 3
        monkeypatch.setitem(sys.modules, "my_data", module)
        return module

    def test_what_functions_may_return(self) -> None:
        assert len(load_dataset("my_data:whole", image_model())) == 2
        mapping = load_dataset("my_data:mapping", image_model())
        assert mapping.labels is not None
        assert mapping.labels.tolist() == [0, 1]
        batches = load_dataset("my_data:batches", image_model())
        assert len(batches) == 6
        assert batches.source == "my_data:batches"

    @pytest.mark.parametrize(
        ("spec", "kind", "message"),
        [
            ("my_data:wrong", DataError, "returned int; expected a Dataset"),
            ("my_data:uneven", DataError, "'pixel_values' is missing from some of the 2 items"),
            ("my_data:empty", DataError, "gave no data"),
            ("my_data:absent", UsageError, "module 'my_data' has no 'absent'"),
            ("my_data:number", UsageError, "is int, not a function"),
            ("no_such_module:f", UsageError, "no module named 'no_such_module'"),
        ],
    )
    def test_bad_functions(self, spec: str, kind: type[IrtoolsError], message: str) -> None:
        with pytest.raises(kind, match=message):
            load_dataset(spec, image_model())


def test_synthetic_by_name() -> None:
    assert load_dataset("synthetic", image_model()).synthetic


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file or folder"):
        load_dataset(str(tmp_path / "absent.npz"), image_model())
    (tmp_path / "d.pkl").write_bytes(b"x")
    with pytest.raises(DataError, match=r"unknown kind of data; \.npz"):
        load_dataset(str(tmp_path / "d.pkl"), image_model())
