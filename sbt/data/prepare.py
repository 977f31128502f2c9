"""One pass over a training source: every row checked, kept rows in a datasets folder, a manifest of what was dropped.

manifest = prepare([chat], folder, images=[zip], lengths=count, limit=2048); rows = arrowfolder.load(folder)
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sbt.data import arrowfolder, imagezip
from sbt.data.checkpoint import DROPPED, MANIFEST, Checkpoint, described, enough_disk, finished, no_cycles, stamp
from sbt.data.formats import Images, parser
from sbt.data.images import ON_BAD
from sbt.data.jsonlist import reader
from sbt.data.llava import Fail, fail_in
from sbt.utils import files, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.text import nearest

SHARD = 50_000  # rows read between two checkpoints: what a killed run does again at most
BATCH = 1_000  # rows whose tokens are counted, and that are written, at once
NAMED = 20  # dropped rows that the manifest names; all are in DROPPED
Lengths = Callable[[list[dict]], list[int]]
Batch = list[tuple[int, dict]]  # row number and row


class _Bad(DataError):
    """A row that cannot be used; the manifest counts by `kind`."""

    def __init__(self, kind: str, error: DataError) -> None:
        super().__init__(str(error))
        self.kind = kind


@dataclass
class _Job:
    """What a preparation was asked for, and what it knows of the rows before."""

    parse: Callable[[object, int, Fail], dict]
    images: Images
    lengths: Lengths | None
    limit: int | None
    on_bad: str
    number_repeated: bool
    headers: bool
    point: Checkpoint
    counts: Counter
    seen: Counter = field(default_factory=Counter)  # ids
    good: set[int] = field(default_factory=set)  # hashes of the images of kept rows: 600,000 names take 100 MB


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
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Check every row of the files `sources`, write those that can be trained on to `folder`; returns the manifest.

    `form` is a name of `formats.FORMATS`; `images` are folders and zips. `lengths(rows)` gives tokens by row, which
    become a column `tokens`: rows of more than `limit` are dropped and counted, never cut; `counted_by` names the
    tokenizer. `on_bad` "stop" raises DataError for the first bad row, "skip" drops and counts it: both name file and
    row. An id used before is bad unless `number_repeated` calls the row `ID#2`. `headers`: look at every image's
    header and end as well. `progress(bytes done, bytes)` after every batch.

    Done before with these files and settings: returns at once. Killed, stopped or out of disk (RunError): the next
    call goes on at the last checkpoint if the rows before it are unchanged; a bad row behind it may have been mended.
    """
    sources, folder = [Path(source) for source in sources], Path(folder)
    _check(on_bad, lengths, counted_by, limit)
    asked = {"form": form, "limit": limit, "counted_by": counted_by, "on_bad": on_bad, "headers": headers,
             "number_repeated": number_repeated, "images": [stamp(Path(place)) for place in images]}  # fmt: skip
    parse, inputs = parser(form), [described(source) for source in sources]
    if found := finished(folder, asked, inputs):
        return found
    total = sum(one["size"] for one in inputs)
    enough_disk(partial := folder.with_name(f".{folder.name}.partial"), total)
    point = Checkpoint(partial, asked, sources)
    job = _Job(parse, Images(images), lengths, limit, on_bad, number_repeated, headers, point, Counter(point.counts))
    for side in point.sides():
        job.seen.update(side["ids"])
    job.good.update(map(hash, point.references()))
    with no_cycles():
        try:
            for done in _run(job):
                if progress:
                    progress(done, total)
        except BaseException:
            point.drop()
            raise
    return _finish(job, folder, asked, inputs)


def _run(job: _Job) -> Iterator[int]:
    """Read, check and write, shard by shard; yields the bytes read so far after every batch."""
    point, before = job.point, 0
    for number, source in enumerate(point.sources):
        size = source.stat().st_size
        if number >= point.source:
            start = (point.mark, point.row) if number == point.source else (0, 0)
            for share in _read(job, number, *start):
                yield before + int(share * size)
        before += size


def _read(job: _Job, number: int, mark: int, row: int) -> Iterator[float]:
    source, point = job.point.sources[number], job.point
    rows, batch, ahead = reader(source, mark, row), [], None
    with ThreadPoolExecutor(1) as counting:  # tokenizers work outside of Python: the next rows are checked meanwhile
        for position, entry in rows:
            job.counts["read"] += 1
            fail = partial(_failure, source, position, entry)
            try:
                batch.append((position, _checked(job, job.parse(entry, position, fail), fail)))
            except DataError as error:
                if job.on_bad == "stop":
                    raise DataError(str(error)) from None
                name = entry.get("id") if isinstance(entry, dict) else None
                _note(job, source, position, name, getattr(error, "kind", "row"), error)
            if (position + 1) % BATCH == 0:
                batch, last, ahead = [], ahead, (batch, counting.submit(_count, job, batch))
                _take(job, source, last)
                yield rows.share()
            if (position + 1) % SHARD == 0:
                _take(job, source, ahead)
                ahead = None
                point.save(number, rows.mark, position + 1, job.counts)
        _take(job, source, ahead)
        _take(job, source, (batch, counting.submit(_count, job, batch)))
    point.save(number + 1, 0, 0, job.counts)
    yield 1.0


def _failure(source: Path, position: int, entry: object, problem: str) -> DataError:
    return fail_in(source, position, entry)(problem)  # only now: the place in words takes longer than all checks


def _checked(job: _Job, row: dict, fail: Fail) -> dict:
    """The row with references of its images and an id of its own."""
    row["images"] = [_image(job, name, fail) for name in row["images"]]
    name = row["id"]
    if name in job.seen and not job.number_repeated:
        words = f"id {name!r} is used by a row before. Give every row its own id, or set number_repeated=True"
        raise _Bad("repeated id", fail(f"{words} where the file names rows by their image"))
    job.seen[name] += 1
    job.point.note_id(name)
    if job.seen[name] > 1:
        row["id"] = f"{name}#{job.seen[name]}"
    return row


def _image(job: _Job, name: str, fail: Fail) -> str:
    if not job.images.places:
        raise _Bad("image missing", fail("the row has an image but no folder or zip of images was given"))
    try:
        ref = job.images.place(name)
    except DataError as error:
        raise _Bad("image refused", fail(str(error))) from None
    if ref is None:
        where = f"image {name} is not in {job.images.shown()}"
        raise _Bad("image missing", fail(f"{where}. Put it there or drop the row"))
    kept = job.images.kept(ref)
    if job.headers and hash(kept) not in job.good and (wrong := imagezip.look(ref)):
        raise _Bad("image damaged", fail(f"image {name}: {wrong}. Replace the file or drop the row"))
    return kept


def _count(job: _Job, batch: Batch) -> list[int]:
    rows = [row for _, row in batch]
    tokens = job.lengths(rows) if job.lengths and rows else [0] * len(rows)
    if len(tokens) != len(rows):
        raise ParameterError(f"lengths gave {len(tokens)} numbers for {len(rows)} rows")
    return tokens


def _take(job: _Job, source: Path, counted: tuple[Batch, Future] | None) -> None:
    """Write what fits of a batch whose tokens are being counted."""
    batch, tokens = (counted[0], counted[1].result()) if counted else ([], [])
    kept = []
    for (position, row), length in zip(batch, tokens, strict=True):
        if job.limit is not None and length > job.limit:
            fail = fail_in(source, position, row)
            words = f"{length} tokens, the limit is {job.limit}: dropped, never cut"
            _note(job, source, position, row["id"], "too long", fail(words))
            continue
        kept.append(row | {arrowfolder.TOKENS: length} if job.lengths else row)
        job.counts["answers"] += len(row["messages"]) // 2  # turns alternate, after a system prompt or none
        job.counts["longest"] = max(job.counts["longest"], length)
        job.counts["tokens"] += length
        job.good.update(map(hash, row["images"]))
    job.counts["kept"] += len(kept)
    job.point.add(kept)


def _note(job: _Job, source: Path, position: int, name: object, kind: str, error: DataError) -> None:
    job.counts["dropped"] += 1
    job.counts[f"dropped: {kind}"] += 1
    job.point.note_drop(
        {"file": paths.recorded(source), "row": position, "id": name, "kind": kind, "reason": str(error)}
    )


def _finish(job: _Job, folder: Path, asked: dict, inputs: list[dict]) -> dict:
    point, counts = job.point, job.counts
    dropped = [row for side in point.sides() for row in sorted(side["dropped"], key=lambda row: row["row"])]
    if not counts["kept"]:
        first = f"\nThe first: {dropped[0]['reason']}" if dropped else ""
        raise DataError(f"{inputs[0]['file']}: no row is left of {counts['read']}{first}")
    manifest = {
        "inputs": inputs,
        "settings": asked,
        "counts": {name: counts[name] for name in ("read", "kept", "dropped", "answers")} | {"images": len(job.good)},
        "drops": {name.partition(": ")[2]: counts[name] for name in sorted(counts) if name.startswith("dropped: ")},
        "dropped": dropped[:NAMED],
        "refused_members": {paths.recorded(file): found.refused for file, found in job.images.zips.items()},
        "tokens": {"total": counts["tokens"], "longest": counts["longest"]} if job.lengths else None,
    }
    arrowfolder.finish(point.folder, [shard for shard in point.shards if shard], bool(job.lengths))
    files.write_jsonl(point.folder / DROPPED, dropped)
    files.write_json(point.folder / MANIFEST, manifest)
    with files.writing(folder):
        if folder.exists():
            shutil.rmtree(folder)
        point.folder.rename(folder)
    point.clean(folder)
    return manifest


def _check(on_bad: str, lengths: Lengths | None, counted_by: str, limit: int | None) -> None:
    if on_bad not in ON_BAD:
        raise ParameterError(f"on_bad {on_bad!r} is unknown{nearest(str(on_bad), ON_BAD)}")
    if limit is not None and lengths is None:
        raise ParameterError("a limit in tokens needs `lengths`, the function that counts them")
    if lengths is not None and not counted_by:
        raise ParameterError("name the tokenizer in `counted_by`: another one would make other lengths")
