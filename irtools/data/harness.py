"""Tasks of EleutherAI's lm-evaluation-harness whose documents are files on this machine.

A task is named as `lm-eval:PATH`, PATH being its YAML file, a folder with one, or FOLDER/NAME: the
task NAME in a folder, as `lm_eval --include_path FOLDER --tasks NAME`. `lm-eval:PATH:METRIC` names
one of its metrics. Nothing is fetched, and nothing is reported to a hub.

A task is code, as it is for lm_eval itself: its YAML may name Python functions next to it
(`!function`), and its templates run without a sandbox.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from irtools.errors import (
    DataError,
    FileError,
    MissingExtraError,
    UnknownNameError,
    UnsupportedError,
)
from irtools.files import scratch_folder
from irtools.plugins import TaskName, suggest
from irtools.words import one_line

__all__ = ["HarnessTask", "read_task"]

_FORMATS = ("json", "csv", "parquet", "text", "arrow")
_SCORED = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")
_FEWSHOT_SEED = 1234  # The default of lm_eval's command line.
_SHOWN = 5


@dataclass(frozen=True)
class HarnessTask:
    """A task, with its documents in memory.

    Attributes:
        name: As it was named.
        task: lm_eval's own.
        requests: Of each document what a model is asked, as lm_eval builds it.
    """

    name: TaskName
    task: Any
    requests: tuple[tuple[Any, ...], ...]

    def results(self, document: int, answers: Sequence[Any]) -> Mapping[str, Any]:
        """Return what each metric keeps of a document.

        Args:
            document: Its number.
            answers: To its requests: (log-likelihood in nats, whether each token is the likeliest)
                each, or the log-likelihood alone where that of a whole text is asked.

        Raises:
            DataError: The task's own code fails.
        """
        asked = [
            replace(one, resps=[a]) for one, a in zip(self.requests[document], answers, strict=True)
        ]
        first = self.task._filters[0]
        try:
            first.apply(asked)
            found = [one.filtered_resps[first.name] for one in asked]
            made: Mapping[str, Any] = self.task.process_results(asked[0].doc, found)
        except Exception as error:  # Code of the task's may raise anything.
            raise self.failed(error) from error
        return made

    def failed(self, error: Exception) -> DataError:
        """Return the error that says what the task's own code raised."""
        return _failed(str(self.name), error)


def read_task(text: str) -> HarnessTask:
    """Read a task and its documents.

    Raises:
        MissingExtraError: lm-eval is not installed.
        FileError: There is no such file.
        UnknownNameError: The folder has no task of that name.
        UnsupportedError: Its documents are not on this machine, or it asks for what cannot be
            computed from scores of tokens.
        DataError: It cannot be read.
    """
    try:
        import lm_eval.tasks  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"the metric {text}", "lm-eval") from error
    name = TaskName.parse(text)
    with _quiet():
        file = _find(name)
        config = _load(file, name, functions=False)
        _check(config, name)
        local = _local(config, file, name)
        with scratch_folder("lm-eval") as cache:
            # In memory: the cache is gone before the documents are read.
            kept = {"cache_dir": str(cache), "keep_in_memory": True}
            task = _build({**_load(file, name, functions=True), **_with(local, kept)}, name)
        return HarnessTask(name, task, tuple(_requests(task, name)))


def _with(local: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    return {**local, "dataset_kwargs": {**local["dataset_kwargs"], **further}}


def _find(name: TaskName) -> Path:
    """Return the YAML of a task."""
    path = Path(name.path).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        files = _tasks_in(path)
        if len(files) == 1:
            return next(iter(files.values()))
        found = f"has several: {_listed(files)}" if files else "has none"
        raise DataError(f"{name}: expected a folder with one task, and it {found}")
    if not path.parent.is_dir() or name.path == path.name:
        raise FileError(
            f"{name}: there is no such file; expected the YAML of a task whose documents are on "
            "this machine, a folder with one, or FOLDER/NAME"
        )
    files = _tasks_in(path.parent)
    if path.name not in files:
        raise UnknownNameError(
            f"there is no task {path.name!r} in {path.parent}{suggest(path.name, [*files])} (there "
            f"are {_listed(files) or 'none'})"
        )
    return files[path.name]


def _tasks_in(folder: Path) -> dict[str, Path]:
    from lm_eval.tasks._index import TaskIndex

    found = TaskIndex.build([folder])
    return {name: one.yaml_path for name, one in found.items() if one.yaml_path is not None}


def _listed(names: Mapping[str, Path]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    return f"{shown}, ..." if len(names) > _SHOWN else shown


def _load(file: Path, name: TaskName, *, functions: bool) -> dict[str, Any]:
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        config = load_yaml(file, resolve_func=functions)
    except Exception as error:  # YAML's own errors, and those of the Python files that it names.
        raise DataError(f"{name} cannot be read: {_line(error)}") from error
    if not isinstance(config, dict) or not ({"task", "group"} & config.keys()):
        raise DataError(f"{name} is not a task of lm-eval: {file} has no entry 'task'")
    return dict(config)


def _check(config: Mapping[str, Any], name: TaskName) -> None:
    """Refuse tasks that scores of tokens do not answer."""
    if "group" in config or isinstance(config["task"], list):
        raise UnsupportedError(f"{name} is a group of tasks: name one of them")
    if "class" in config:
        raise UnsupportedError(f"{name} is a class in Python, and only tasks in YAML can be read")
    kind = config.get("output_type", "generate_until")
    if kind not in _SCORED:
        raise UnsupportedError(
            f"{name} asks for {kind}, and only {', '.join(_SCORED)} can be scored"
        )
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise UnsupportedError(f"{name} asks about images or sound, and only text can be scored")
    if not (config.get("test_split") or config.get("validation_split")):
        raise DataError(f"{name} names no test_split and no validation_split")
    _check_metrics(config, name)


def _check_metrics(config: Mapping[str, Any], name: TaskName) -> None:
    import lm_eval.api.metrics  # noqa: F401 - registers them.
    from lm_eval.api.registry import metric_registry

    listed = config.get("metric_list")
    if listed is not None and not (isinstance(listed, list) and listed):
        raise DataError(f"{name} has no list of metrics: metric_list is {listed!r}")
    for one in listed or ():
        if not isinstance(one, dict) or "metric" not in one:
            raise DataError(f"{name} has {one!r} in its metric_list, expected an entry 'metric'")
        metric = one["metric"]
        own = "process_results" in config or "." in str(metric)
        if not own and (one.get("hf_evaluate") or metric not in metric_registry):
            raise UnsupportedError(
                f"{name} has the metric {metric!r}, which lm-eval would fetch from a hub; "
                "expected one of its own"
            )


def _local(config: Mapping[str, Any], file: Path, name: TaskName) -> dict[str, Any]:
    """Return where the documents are, as settings of the task."""
    source, given = config.get("dataset_path"), config.get("dataset_kwargs") or {}
    if not isinstance(given, Mapping):
        raise DataError(f"{name} has {given!r} as dataset_kwargs, expected names and values")
    if isinstance(source, str) and source not in _FORMATS and _is_data(Path(source)):
        return {"dataset_path": source, "dataset_kwargs": dict(given)}
    files = given.get("data_files")
    if source not in _FORMATS or not files:
        raise UnsupportedError(
            f"{name} reads {source or 'nothing'} from a hub; expected documents on this machine: "
            f"dataset_path: json (or {', '.join(_FORMATS[1:])}), and data_files in dataset_kwargs"
        )
    return {
        "dataset_path": source,
        "dataset_kwargs": {**given, "data_files": _located(files, file.parent, name)},
    }


def _is_data(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.glob("*.py"))


def _located(files: Any, folder: Path, name: TaskName) -> Any:
    """Return paths from the working directory, else from the folder of the task's YAML."""
    if isinstance(files, Mapping):
        return {split: _located(one, folder, name) for split, one in files.items()}
    if isinstance(files, Sequence) and not isinstance(files, str):
        return [_located(one, folder, name) for one in files]
    if not isinstance(files, str):
        raise DataError(f"{name} has {files!r} among its data_files, expected paths")
    for path in (Path(files), folder / files):
        if path.exists() or ("*" in path.name and any(path.parent.glob(path.name))):
            return str(path.absolute())
    raise FileError(f"{name}: there is no file {files}, which its data_files name")


def _build(config: dict[str, Any], name: TaskName) -> Any:
    from lm_eval.tasks import TaskManager

    try:
        ((_, task),) = TaskManager(include_defaults=False).load([config])["tasks"].items()
        task.set_fewshot_seed(_FEWSHOT_SEED)
    except Exception as error:  # Of YAML, of datasets, of the task's own code.
        raise _failed(str(name), error) from error
    return task


def _requests(task: Any, name: TaskName) -> Iterator[tuple[Any, ...]]:
    try:
        for number, document in enumerate(task.eval_docs):
            context = task.fewshot_context(
                document,
                num_fewshot=task.config.num_fewshot or 0,
                gen_prefix=task.doc_to_prefix(document),
            )
            place = (task.config.task, number, 1)
            made = task.construct_requests(doc=document, ctx=context, metadata=place)
            yield tuple(made) if isinstance(made, list) else (made,)
    except Exception as error:  # Templates and functions of the task's.
        raise _failed(str(name), error) from error


def _failed(name: str, error: Exception) -> DataError:
    return DataError(f"{name} fails: {type(error).__name__}: {_line(error)}")


def _line(error: Exception) -> str:
    return one_line(error) or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep datasets from the network, and both libraries from printing."""
    import datasets

    offline, shown = datasets.config.HF_HUB_OFFLINE, datasets.is_progress_bar_enabled()
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [one.level for one in loggers]
    datasets.config.HF_HUB_OFFLINE = True
    datasets.disable_progress_bars()
    for one in loggers:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
        if shown:
            datasets.enable_progress_bars()
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
