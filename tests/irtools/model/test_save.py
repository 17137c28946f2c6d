"""Saving: whole or not at all, whatever the system refuses, and never over weights in use."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from irtools.errors import FileError, IrtoolsError, LimitError, ModelError, VerificationError
from irtools.model import Model

FAULTS = ("open", "write", "fsync", "rename", "flock", "fstat", "read", "lseek", "unlink")
REMOVALS = ("unlink",)


def make_model(seed: int = 0, size: int = 700) -> Model:
    """x[N, 4] @ w[4, size]; with 700 columns w is large enough to go into a file of its own."""
    array = np.random.default_rng(seed).normal(size=(4, size)).astype(np.float32)
    tensor = ir.Tensor(array, name="w")
    weight = ir.Value(
        name="w", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape
    )
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", 4]))
    node = ir.node("MatMul", [x, weight], name="matmul")
    y = node.outputs[0]
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N", size])
    graph = ir.Graph([x], [y], nodes=[node], initializers=[weight], opset_imports={"": 17})
    return Model.from_ir(ir.Model(graph, ir_version=10))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Fault:
    """Makes the k-th call of a function of `os` fail, once or from then on."""

    def __init__(self, k: int, code: int, forever: bool) -> None:
        self._left, self._code, self._forever = k, code, forever
        self.fired = False

    def wrap(self, function: Callable) -> Callable:
        def faulty(*args: object, **kwargs: object) -> object:
            self._left -= 1
            if self._left == 0 or (self._forever and self._left < 0):
                self.fired = True
                raise OSError(self._code, os.strerror(self._code))
            return function(*args, **kwargs)

        return faulty


@contextmanager
def failing(names: tuple[str, ...], fault: Fault) -> Iterator[None]:
    import fcntl

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            home = fcntl if name == "flock" else os
            patch.setattr(home, name, fault.wrap(getattr(home, name)))
        yield


@pytest.mark.parametrize("forever", [False, True], ids=["once", "for-ever"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_every_write_fault_leaves_the_old_files(
    external: bool, code: int, forever: bool, tmp_path: Path
) -> None:
    """Fail the 1st, 2nd, 3rd ... system call until a save gets through."""
    path = tmp_path / "out.onnx"
    make_model(1).save(path, external_data=external)
    old, old_text = content(tmp_path), Model.load(path).text()
    new = make_model(2)
    calls = tuple(name for name in FAULTS if name not in REMOVALS)
    for k in range(1, 200):
        fault = Fault(k, code, forever)
        try:
            with failing(calls, fault):
                new.save(path, external_data=external)
        except IrtoolsError as error:
            assert error.exit_code in (3, 6)
            assert "\n" not in str(error)
            assert content(tmp_path) == old
            assert Model.load(path).text() == old_text
            continue
        if not fault.fired:
            break
        # A fault that stops nothing: after the rename, or while looking at old files.
        assert Model.load(path).text() == new.text()
        for item in tmp_path.iterdir():
            item.unlink()
        make_model(1).save(path, external_data=external)
    else:
        pytest.fail("no save got through")
    assert k > 8
    assert Model.load(path).text() == new.text()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_full_disk_leaves_the_old_files(external: bool, share: float, tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    make_model(1, 20_000).save(path, external_data=external)
    old = content(tmp_path)
    limit = int(max(map(len, old.values())) * share)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(FileError, match="full"):
            make_model(2, 20_000).save(path, external_data=external)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert content(tmp_path) == old


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_interrupt_leaves_the_old_files(
    external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.onnx"
    make_model(1).save(path, external_data=external)
    old = content(tmp_path)

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_model(2).save(path, external_data=external)
    assert content(tmp_path) == old


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_mode_is_that_of_a_plain_write(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        saved = make_model().save(tmp_path / "out.onnx", external_data=True)
        (tmp_path / "plain").write_bytes(b"")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (*saved.files, tmp_path / "plain")}
    assert modes == {0o666 & ~umask}


def test_external_data_is_chosen_by_size_or_on_request(tmp_path: Path) -> None:
    assert len(make_model().save(tmp_path / "a.onnx").files) == 1
    saved = make_model().save(tmp_path / "b.onnx", external_data=True)
    assert [path.name for path in saved.files] == ["b.onnx", "b.onnx.data"]
    assert saved.size == sum(path.stat().st_size for path in saved.files)


def test_large_models_get_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irtools.model.writer.EXTERNAL_ABOVE", 10_000)
    assert len(make_model().save(tmp_path / "a.onnx").files) == 2


def test_saving_again_removes_its_old_weights(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    for seed in range(4):
        model = make_model(seed)
        model.save(path, external_data=True)
        assert len(content(tmp_path)) == 2
        assert Model.load(path).text() == model.text()
    make_model().save(path, external_data=False)
    assert set(content(tmp_path)) == {"out.onnx"}


def test_weights_of_others_are_never_overwritten(tmp_path: Path) -> None:
    foreign = tmp_path / "out.onnx.data"
    foreign.write_bytes(b"mine")
    saved = make_model().save(tmp_path / "out.onnx", external_data=True)
    assert foreign.read_bytes() == b"mine"
    assert saved.files[1].name == "out.onnx.1.data"


def test_saving_over_its_own_source(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    make_model().save(path, external_data=True)
    model = Model.load(path)
    text = model.text()
    for external in (True, True, False, True):
        model.save(path, external_data=external)
        assert Model.load(path).text() == text
    # The first object still reads the weights that it mapped.
    np.testing.assert_array_equal(
        model.ir.graph.initializers["w"].const_value.numpy(),
        make_model().ir.graph.initializers["w"].const_value.numpy(),
    )


def test_moved_output_still_loads(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    make_model().save(tmp_path / "a" / "m.onnx", external_data=True)
    (tmp_path / "a").rename(tmp_path / "b")
    assert Model.load(tmp_path / "b" / "m.onnx").text() == make_model().text()


@pytest.mark.parametrize("planted", ["out.onnx", "out.onnx.data"])
def test_planted_link_is_not_followed(planted: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / planted).symlink_to(target)
    make_model().save(tmp_path / "out.onnx", external_data=True)
    assert target.read_bytes() == b"precious"
    assert Model.load(tmp_path / "out.onnx").text() == make_model().text()


def test_changed_source_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    make_model().save(path)
    model = Model.load(path)
    with path.open("r+b") as file:
        file.seek(200)
        file.write(b"other")
    with pytest.raises(ModelError, match="changed while"):
        model.save(tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("target", "needle"),
    [("absent/out.onnx", "no such file"), ("folder", "regular file"), ("file/out.onnx", "cannot")],
)
def test_impossible_targets(target: str, needle: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match=needle):
        make_model().save(tmp_path / target)
    assert not list((tmp_path / "folder").iterdir())


def test_unsound_model_is_not_written(tmp_path: Path) -> None:
    model = make_model()
    model.ir.graph.outputs.clear()
    with pytest.raises(VerificationError, match="no outputs"):
        model.save(tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        make_model().save(tmp_path / folder / "m.onnx", external_data=True)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_longest_names(tmp_path: Path) -> None:
    saved = make_model().save(tmp_path / ("n" * 245 + ".onnx"), external_data=True)
    assert Model.load(saved.files[0]).text() == make_model().text()


def test_more_than_a_message_holds(tmp_path: Path) -> None:
    """Three gigabytes of weights are mapped, not read, and do not go into one file."""
    columns = 3 * 2**30 // 16
    proto = make_model(size=1).to_proto()
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.dims[1] = columns
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="big.bin")
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = columns
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(16 * columns)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = Model.load(tmp_path / "m.onnx")
    assert model.weight_bytes == 3 * 2**30
    with pytest.raises(LimitError, match="2 GiB"):
        model.save(tmp_path / "out.onnx", external_data=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert {item.name for item in tmp_path.iterdir()} == {"m.onnx", "big.bin"}


RACING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_save import make_model
for round in range(8):
    make_model(int(sys.argv[3])).save(Path(sys.argv[1]), external_data=True)
"""


def test_writers_of_one_output_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    here = str(Path(__file__).parent)
    commands = [[sys.executable, "-c", RACING, str(path), here, str(seed)] for seed in range(2)]
    writers = [subprocess.Popen(command) for command in commands]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert Model.load(path).text() in {make_model(seed).text() for seed in range(2)}
    assert len(content(tmp_path)) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_save import make_model
os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
make_model().save(Path(sys.argv[1]))
"""


def test_leftovers_of_a_killed_writer_are_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", KILLED, str(path), here], check=False)
    assert [item.name.startswith(".out.onnx.irtools-") for item in tmp_path.iterdir()] == [True]
    make_model().save(path)
    assert set(content(tmp_path)) == {"out.onnx"}
