"""One pass over a training source: every row checked, kept rows in a datasets folder, a manifest of what was dropped.

manifest = prepare([chat], folder, images=[zip], lengths=count, limit=2048);  rows = load(folder)
"""

import contextlib
import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import pyarrow as pa

from sbt.data.conversations import BadRow, Faults, damaged, own_id, parser, place_image
from sbt.data.image_zip import ImageFinder, look
from sbt.data.images import ON_BAD
from sbt.data.json_stream import reader
from sbt.utils import env, files, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.text import nearest

MANIFEST, DROPPED = "manifest.json", "dropped.jsonl"
TOKENS = "tokens"  # column of the rows' lengths, there where they were counted
BATCH = 1_000  # rows that are checked, counted and written at once
NAMED = 20  # dropped rows that the manifest names; all are in DROPPED
WRITTEN = 2.4  # bytes of disk for each byte of the rows' files, while the rows are written
_TEXT = datasets.Value("string")
_FEATURES = {
    "id": _TEXT,
    "images": datasets.List(_TEXT),
    "messages": datasets.List({"role": _TEXT, "content": datasets.List({"type": _TEXT, "text": _TEXT})}),
}
Lengths = Callable[[list[dict]], list[int]]


@dataclass
class _Candidate:
    """A row of a batch: where it stands, the row with the paths of its images, its tokens, or what is wrong with it.

    `damaged` maps the names of images that cannot be used to the reason.
    """

    position: int
    entry: object
    row: dict | None = None
    names: Sequence[str] = ()
    tokens: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    bad: BadRow | None = None


@dataclass
class _Job:
    """What a preparation was asked for, and what it knows of the rows before."""

    parse: Callable[[object, int, Faults], dict]
    find: ImageFinder
    lengths: Lengths | None
    limit: int | None
    on_bad: str
    number_repeated: bool
    headers: bool
    only: Collection[int] | None = None
    counts: Counter = field(default_factory=Counter)
    seen: Counter = field(default_factory=Counter)  # ids
    good: set[int] = field(default_factory=set)  # hashes of the images of kept rows: 600,000 names take 100 MB
    dropped: list[dict] = field(default_factory=list)
    noted: Counter = field(default_factory=Counter)
    passed: int = 0  # rows of the files so far, looked at or not

    def chosen(self, rows: Iterable[tuple[int, object]]) -> Iterator[tuple[int, object]]:
        """Those rows of a file that are to be looked at."""
        for row in rows:
            if self.only is None or self.passed in self.only:
                yield row
            self.passed += 1


def prepare(
    sources: Sequence[Path],
    folder: Path,
    *,
    form: str = "llava",
    images: Sequence[Path] = (),
    lengths: Lengths | None = None,
    counted_by: str = "",
    limit: int | None = None,
    on_bad: str = "stop",
    number_repeated: bool = False,
    headers: bool = True,
    only: Collection[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Check every row of the files `sources`, write those that can be trained on to `folder`; returns the manifest.

    `form` is a name of `conversations.FORMATS`; `images` are folders and zips. `lengths(rows)` gives tokens by row,
    which become a column `tokens`: rows of more than `limit` are dropped and counted, never cut; `counted_by` names
    the tokenizer. `on_bad` "stop" raises DataError for the first bad row, "skip" drops and counts it: both name file
    and row. An id used before is bad unless `number_repeated` calls the row `ID#2`. `headers`: look at every image as
    well (`image_zip.fault`). `only`: places of the rows to look at, over all files. `progress(bytes done, bytes)`.
    The folder is there whole or not at all; rows go through memory batch by batch. Done before with these files and
    settings: returns at once. RunError where the disk is too small or full.
    """
    sources, folder = [Path(source) for source in sources], Path(folder)
    _check(on_bad, lengths, counted_by, limit)
    asked = {"form": form, "limit": limit, "counted_by": counted_by, "on_bad": on_bad, "headers": headers,
             "number_repeated": number_repeated, "images": [_stamp(Path(place)) for place in images]}  # fmt: skip
    asked |= {"only": files.sha256(str(sorted(only)))[:16]} if only is not None else {}
    parse, inputs = parser(form), [_described(source) for source in sources]
    if done_before := _finished(folder, asked, inputs):
        return done_before
    total = sum(one["size"] for one in inputs)
    env.check_space(folder.parent, WRITTEN * total / env.GB)
    job = _Job(parse, ImageFinder(images), lengths, limit, on_bad, number_repeated, headers, only)
    with _whole_folder(folder) as whole, _no_cycles():
        stream = whole.with_name("rows.arrow")
        with _writer(stream, counted=lengths is not None) as write:
            for done in _run(job, sources, write):
                if progress:
                    progress(done, total)
        manifest = _manifest(job, asked, inputs)
        with files.writing(folder), quiet():
            rows = datasets.Dataset.from_file(str(stream))
            rows._fingerprint = files.file_hash(stream)[:16]  # its own is made of the file's path
            rows.save_to_disk(str(whole))
        files.write_jsonl(whole / DROPPED, job.dropped)
        files.write_json(whole / MANIFEST, manifest)
    return manifest


def load(folder: Path) -> datasets.Dataset:
    """The prepared rows, mapped from the disk; DataError where preparation has not finished."""
    folder = Path(folder)
    if not (folder / "state.json").is_file():
        raise DataError(f"{paths.shown(folder)}: no prepared data. Run the data preparation first")
    return datasets.load_from_disk(str(folder))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of the datasets library: a published notebook would keep them."""
    before = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            datasets.enable_progress_bars()


def _run(job: _Job, sources: Sequence[Path], write: Callable[[list[dict]], None]) -> Iterator[int]:
    """Read, check and write, batch by batch; yields the bytes read so far after every batch."""
    before, workers = 0, min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(1) as counting, ThreadPoolExecutor(workers) as looking:
        for source in sources:
            faults, rows, ahead = Faults(source), reader(source), None
            for batch in _batches(job.chosen(rows)):
                for one in batch:
                    _parse(job, one, faults)
                # Tokenizers and image decoders work outside of Python: the next rows are parsed meanwhile.
                measured = counting.submit(_measure, job, batch, looking)
                if ahead:
                    write(_take(job, *ahead, faults))
                ahead = batch, measured
                yield before + int(rows.share() * source.stat().st_size)
            if ahead:
                write(_take(job, *ahead, faults))
            job.noted.update(faults.noted)
            before += source.stat().st_size
            yield before


def _batches(rows: Iterator[tuple[int, object]]) -> Iterator[list[_Candidate]]:
    batch = []
    for position, entry in rows:
        batch.append(_Candidate(position, entry))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _parse(job: _Job, one: _Candidate, faults: Faults) -> None:
    """Fill in the row with the paths of its images, or what is wrong with it."""
    try:
        row = job.parse(one.entry, one.position, faults.at(one.position, one.entry))
        one.names = row["images"]
        row["images"] = [place_image(name, job.find, faults) for name in one.names]
        one.row = row
    except BadRow as error:
        one.bad = error


def _measure(job: _Job, batch: list[_Candidate], looking: ThreadPoolExecutor) -> None:
    """Fill in the tokens of the rows, and the images that cannot be used of those not looked at before."""
    good = [one for one in batch if one.row]
    if job.headers:
        new = {path: "" for one in good for path in one.row["images"] if hash(path) not in job.good}
        new.update(zip(new, looking.map(look, new), strict=True))
        for one in good:
            named = zip(one.names, one.row["images"], strict=True)
            one.damaged = {name: problem for name, path in named if (problem := new.get(path))}
    if job.lengths and good:
        tokens = job.lengths([one.row for one in good])
        if len(tokens) != len(good):
            raise ParameterError(f"lengths gave {len(tokens)} numbers for {len(good)} rows")
        for one, count in zip(good, tokens, strict=True):
            one.tokens = count


def _take(job: _Job, batch: list[_Candidate], measured: Future, faults: Faults) -> list[dict]:
    """The rows of a batch to write, in their order; what is wrong with another one is raised, or counted."""
    measured.result()
    kept = []
    for one in batch:
        job.counts["read"] += 1
        try:
            row = _good(job, one, faults.at(one.position, one.entry))
        except BadRow as error:
            if job.on_bad == "stop":
                raise DataError(str(error)) from None
            _drop(job, one, faults.file, error)
            continue
        if job.limit is not None and one.tokens > job.limit:
            words = f"{one.tokens} tokens, the limit is {job.limit}: dropped, never cut"
            _drop(job, one, faults.file, faults(words, "too long"))
            continue
        job.counts["answers"] += len(row["messages"]) // 2  # turns alternate, after a system prompt or none
        job.counts["longest"] = max(job.counts["longest"], one.tokens)
        job.counts["tokens"] += one.tokens
        job.good.update(map(hash, row["images"]))
        row["images"] = [job.find.kept(path) for path in row["images"]]
        kept.append(row | {TOKENS: one.tokens} if job.lengths else row)
    job.counts["kept"] += len(kept)
    return kept


def _good(job: _Job, one: _Candidate, faults: Faults) -> dict:
    """The row of a candidate, with an id of its own; BadRow says what is wrong with it."""
    if one.bad:
        raise one.bad
    for name, problem in one.damaged.items():
        raise damaged(name, problem, faults)
    return own_id(one.row, job.seen, faults, number_repeated=job.number_repeated)


def _drop(job: _Job, one: _Candidate, file: Path, error: BadRow) -> None:
    job.counts["dropped"] += 1
    job.counts[f"dropped: {error.kind}"] += 1
    name = one.entry.get("id") if isinstance(one.entry, dict) else None
    if isinstance(name, str):  # half of a surrogate pair cannot be written
        name = name.encode("utf-8", "backslashreplace").decode()
    place = {"file": paths.recorded(file), "row": one.position, "id": name}
    job.dropped.append(place | {"kind": error.kind, "reason": str(error)})


def _manifest(job: _Job, asked: dict, inputs: list[dict]) -> dict:
    counts = job.counts
    if not counts["kept"]:
        first = f"\nThe first: {job.dropped[0]['reason']}" if job.dropped else ""
        raise DataError(f"{inputs[0]['file']}: no row is left of {counts['read']}{first}")
    return {
        "inputs": inputs,
        "settings": asked,
        "counts": {name: counts[name] for name in ("read", "kept", "dropped", "answers")} | {"images": len(job.good)},
        "drops": {name.partition(": ")[2]: counts[name] for name in sorted(counts) if name.startswith("dropped: ")},
        "dropped": job.dropped[:NAMED],
        "accepted": dict(job.noted),
        "refused_members": {paths.recorded(file): opened.refused for file, opened in job.find.zips.items()},
        "tokens": {"total": counts["tokens"], "longest": counts["longest"]} if job.lengths else None,
    }


@contextlib.contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to that takes the place of `folder` in the end; after an error nothing is left of it.

    It lies in a hidden folder beside, which may hold further files meanwhile.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    with files.writing(folder):
        partial.mkdir(parents=True)
    try:
        yield partial / "whole"
        with files.writing(folder):
            if folder.exists():
                shutil.rmtree(folder)
            (partial / "whole").rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _writer(file: Path, counted: bool) -> Iterator[Callable[[list[dict]], None]]:
    """A function that writes rows to an Arrow file, as one record batch each time. RunError: the disk is full."""
    schema = datasets.Features(_FEATURES | ({TOKENS: datasets.Value("int32")} if counted else {})).arrow_schema
    with files.writing(file):
        raw = open(file, "wb")  # noqa: SIM115 - closed below
        stream = pa.ipc.new_stream(raw, schema)

    def write(rows: list[dict]) -> None:
        if rows:
            columns = [pa.array([row[column.name] for row in rows], type=column.type) for column in schema]
            with files.writing(file):
                stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))

    try:
        yield write
        with files.writing(file):
            stream.close()
            raw.close()
    finally:
        with contextlib.suppress(OSError):  # a full disk refuses the rest of the buffer once more
            raw.close()


@contextlib.contextmanager
def _no_cycles() -> Iterator[None]:
    """Rows hold no reference cycles, and looking for some in millions of small objects takes half of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _finished(folder: Path, asked: dict, inputs: list[dict]) -> dict | None:
    """The manifest of the same preparation if it is there; ParameterError for a folder that holds something else."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if not (folder / MANIFEST).is_file():
        raise ParameterError(f"{paths.shown(folder)} holds no prepared data. Name a new folder: it would be replaced")
    manifest = files.read_json(folder / MANIFEST)
    same = (manifest.get("settings"), manifest.get("inputs")) == (asked, inputs)
    return manifest if same else None


def _described(source: Path) -> dict:
    """What a manifest records of a file of rows: `file`, `size`, `sha256`; DataError where it is missing."""
    if not source.is_file():
        raise DataError(f"{paths.shown(source)} does not exist. Download it first")
    return {"file": paths.recorded(source), "size": source.stat().st_size, "sha256": files.file_hash(source)}


def _stamp(place: Path) -> dict:
    """What tells whether a folder or zip of images is the one of before; DataError where it is missing."""
    if not place.exists():
        raise DataError(f"{paths.shown(place)} does not exist. Download the images, or name where they are")
    stamp = {"place": paths.recorded(place)}
    return stamp | ({"size": place.stat().st_size, "time": place.stat().st_mtime_ns} if place.is_file() else {})


def _check(on_bad: str, lengths: Lengths | None, counted_by: str, limit: int | None) -> None:
    if on_bad not in ON_BAD:
        raise ParameterError(f"on_bad {on_bad!r} is unknown{nearest(str(on_bad), ON_BAD)}")
    if limit is not None and lengths is None:
        raise ParameterError("a limit in tokens needs `lengths`, the function that counts them")
    if lengths is not None and not counted_by:
        raise ParameterError("name the tokenizer in `counted_by`: another one would make other lengths")
