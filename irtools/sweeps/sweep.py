"""The same request for many models: an array of jobs, of which each is kept as it ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from irtools.driver.settings import Settings
from irtools.errors import ClusterError, FileError, UsageError
from irtools.executors import (
    Executor,
    Farm,
    InlineExecutor,
    Outcome,
    ServiceSpec,
    Task,
    model_files,
    packed,
)
from irtools.files import (
    Store,
    file_hashes,
    files_below,
    json_text,
    replace_folder,
    staging_folder,
    write_text,
)
from irtools.measure.machine import code_digest, versions
from irtools.sweeps.entries import FORMAT, Entry, SweepDocument
from irtools.sweeps.names import names_of
from irtools.sweeps.service import Made, SweepService
from irtools.targets import target_text
from irtools.words import counted

__all__ = ["Request", "sweep"]

LIST = "sweep.json"


@dataclass(frozen=True)
class Request:
    """What is asked of every model.

    Attributes:
        passes: Pipeline text; `none`: models are only measured and written; None: found for the
            goals.
        settings: As of `optimize`; the target is one, not `auto`.
        data: `calibration`, `evaluation` and `holdout`, as paths; None: not given.
        cache: Folder in which results are kept between runs; None: not kept.
        force: Make what is there already, too.
    """

    passes: str | None
    settings: Settings
    data: Mapping[str, str | None] = field(default_factory=dict)
    cache: Path | None = None
    force: bool = False


def sweep(
    sources: Sequence[str],
    request: Request,
    folder: Path,
    executor: Executor | None = None,
    *,
    on_entry: Callable[[Entry], None] = lambda entry: None,
    on_note: Callable[[str], None] = lambda line: None,
) -> SweepDocument:
    """Optimize many models, each into a folder of its own below `folder`.

    A model that fails does not stop the others. `sweep.json` is written after every model, so that
    the same call goes on where it was stopped: what is there from the same request stays.

    Args:
        sources: As `optimize` takes them.
        executor: Workers that models are made on; None: here, one after the other.
        on_entry: Called with each model as it ends.
        on_note: Told of workers that come and go, a line each.

    Raises:
        UsageError: Two models would have the same name, or the folder holds other files.
        FileError: Something cannot be read or written.
        ClusterError: The workers are gone; the models that ended are there.
    """
    names = names_of(sources)
    old = _read_list(folder)
    made: dict[str, Entry] = {}
    for source in sources:
        entry = Entry(names[source], source, "unchanged", _key(source, request))
        before = old.get(entry.name)
        if before is not None and not request.force and _is_there(folder, before, entry):
            made[source] = replace(before, source=source, outcome="unchanged")
            on_entry(made[source])
    left = [source for source in sources if source not in made]
    writer = _Writer(sources, names, request, folder, made)
    if left:
        shares = executor is None or executor.shares_files
        with _farm(request, executor, on_note) as farm:
            for source in left:
                payload = packed(source, shares_files=shares)
                farm.submit(Task(source, payload, timed=request.settings.bench is not None))
            try:
                for outcome in farm.results():
                    on_entry(writer.take(outcome))
            except ClusterError as error:
                ended = f"{len(made)} of {counted(len(sources), 'model')} are in {folder}"
                raise ClusterError(f"{error}; {ended}: the same command goes on") from error
    writer.write()
    return writer.document


@contextmanager
def _farm(
    request: Request, executor: Executor | None, on_note: Callable[[str], None]
) -> Iterator[Farm]:
    target = request.settings.find_target()
    settings = replace(request.settings, target=target)
    shares = executor is None or executor.shares_files
    data = {name: packed(one, shares_files=shares) for name, one in request.data.items()}
    cache = request.cache if shares else None
    payload = {"settings": settings, "passes": request.passes, "cache": cache, **data}
    isa = None if settings.bench is None else target.isa.value
    used = InlineExecutor(SweepService(payload)) if executor is None else executor
    spec = ServiceSpec("irtools.sweeps.service:SweepService", payload)
    with Farm(used, spec, isa=isa, on_note=on_note) as farm:
        yield farm


class _Writer:
    """Writes what comes, model by model.

    Args:
        made: Entries by source; filled as they come.
    """

    def __init__(
        self,
        sources: Sequence[str],
        names: Mapping[str, str],
        request: Request,
        folder: Path,
        made: dict[str, Entry],
    ) -> None:
        self._sources = sources
        self._names = names
        self._request = request
        self._folder = folder
        self._made = made

    @property
    def document(self) -> SweepDocument:
        """What there is by now, in the order in which it was asked for."""
        settings = self._request.settings
        return SweepDocument(
            target_text(settings.find_target()),
            self._request.passes or "found for the goals",
            tuple(map(str, settings.wanted)),
            tuple(self._made[source] for source in self._sources if source in self._made),
        )

    def take(self, outcome: Outcome) -> Entry:
        """Write the files of a model, and the list."""
        source = outcome.task.key
        key = _key(source, self._request)
        name = self._names[source]
        if outcome.error is not None:
            error = outcome.error
            entry = Entry(name, source, "failed", key, str(error), error.exit_code)
        else:
            entry = self._keep(name, source, key, outcome.value)
        self._made[source] = entry
        self.write()
        return entry

    def _keep(self, name: str, source: str, key: str, made: Made) -> Entry:
        if made.error:
            code = made.code
            return Entry(name, source, "failed", key, made.error, code, worker=made.worker)
        with staging_folder(self._folder) as staging:
            for file, content in made.files.items():
                place = staging / "made" / file
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            replace_folder(staging / "made", self._folder / name)
        files = {
            file: hashlib.sha256(content).hexdigest()
            for file, content in sorted(made.files.items())
        }
        return Entry(
            name, source, "done", key, "", 0, made.pipeline, files, made.figures, made.worker
        )

    def write(self) -> None:
        """Write the list of what there is."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_text(self._folder / LIST, json_text(self.document.to_dict()))


def _key(source: str, request: Request) -> str:
    """Return the hash of all that decides what comes of a model."""
    target = request.settings.find_target()
    settings = replace(request.settings, target=target)
    data = {name: None if one is None else _content(one) for name, one in request.data.items()}
    return Store.key(
        source=_content(source),
        passes=request.passes,
        settings=f"{settings}\n{target_text(target)}",
        data=sorted(data.items()),
        versions=sorted(versions().items()),
        code=code_digest(),
    )


def _content(text: str) -> str:
    """Return the hash of a file with its weights or of a folder; text that is neither is itself."""
    path = Path(text)
    if path.is_dir():
        files = [path / name for name in files_below(path)]
    elif path.is_file():
        files = [*model_files(path)]
    else:
        return text
    found = file_hashes(files)
    return Store.key(**{f"file {number}": found[one] for number, one in enumerate(files)})


def _is_there(folder: Path, before: Entry, wanted: Entry) -> bool:
    """Whether a model was made from the same request, and its files are as they were written."""
    place = folder / before.name
    same = before.key == wanted.key and before.outcome != "failed"
    if not same or not all((place / name).is_file() for name in before.files):
        return False
    found = file_hashes(place / name for name in before.files)
    return all(found[place / name] == digest for name, digest in before.files.items())


def _read_list(folder: Path) -> dict[str, Entry]:
    """Return the entries of an earlier sweep into the same folder.

    Raises:
        UsageError: The folder holds other files.
    """
    import msgspec

    place = folder / LIST
    if not place.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{folder} holds other files than a sweep's: give another one with -o")
        return {}
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError
        entries = msgspec.convert(document["models"], list[Entry])
    except (OSError, ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise FileError(f"{place} cannot be read: remove it to make all models again") from error
    return {one.name: one for one in entries}
