"""How far a preparation has come: shards that are whole, and the place in the source behind the last of them.

Lives in a hidden folder beside the result. A next run goes on if the rows it read before are still the same.
"""

import contextlib
import gc
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets import Dataset

from sbt.data import arrowfolder
from sbt.utils import env, files, paths
from sbt.utils.errors import DataError, ParameterError, RunError

PROGRESS, MANIFEST, DROPPED = "progress.json", "manifest.json", "dropped.jsonl"
WRITTEN = 1.2  # bytes written for each byte of the rows' files


class Checkpoint:
    """State of a preparation in `folder`: `source`, `mark`, `row` to go on at, `counts`, and the names of `shards`.

    What `asked` and the bytes read before do not match is thrown away. `add`, `note_id` and `note_drop` collect;
    `save` writes all of it, or RunError where the disk is full and the state stays as it was saved last.
    """

    def __init__(self, folder: Path, asked: dict, sources: Sequence[Path]) -> None:
        self.folder, self.asked, self.sources = Path(folder), asked, list(sources)
        self.source, self.mark, self.row, self.counts, self.shards = 0, 0, 0, {}, []
        self._digests = [hashlib.sha256() for _ in self.sources]
        self._hashed = [0] * len(self.sources)
        if not self._resume():
            shutil.rmtree(self.folder, ignore_errors=True)
            self._digests = [hashlib.sha256() for _ in self.sources]
            self._hashed = [0] * len(self.sources)
        with files.writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".*.tmp"):
            left.unlink()
        self._clear()

    def add(self, rows: list[dict]) -> None:
        """Write kept rows, all with the column of their tokens or all without."""
        if rows:
            file = self.folder / f"data-{len(self.shards):05}.arrow"
            self._shard = self._shard or arrowfolder.Shard(file, arrowfolder.TOKENS in rows[0])
            self._shard.add(rows)

    def note_id(self, name: str) -> None:
        """Remember an id of the source, before it is renamed."""
        self._ids.append(name)

    def note_drop(self, row: dict) -> None:
        """Remember a row that was dropped."""
        self._dropped.append(row)

    def save(self, source: int, mark: int, row: int, counts: dict) -> None:
        """Everything up to the byte (Parquet: row) `mark` of a source is done: `row` rows of it."""
        number, shard = len(self.shards), self._shard
        self._shard = None
        if shard:
            shard.close()
        side = {"ids": self._ids, "dropped": self._dropped}
        files.write_text(self._side(number), json.dumps(side))
        state = {
            "asked": self.asked,
            "source": source,
            "mark": mark,
            "row": row,
            "counts": dict(counts),
            "shards": [*self.shards, shard.file.name if shard else ""],
            "read": self._read(source, mark),
        }
        files.write_json(self.folder / PROGRESS, state)
        self.source, self.mark, self.row, self.shards = source, mark, row, state["shards"]
        self._clear()

    def drop(self) -> None:
        """Take away what was written since the last `save`."""
        if self._shard:
            self._shard.drop()

    def sides(self) -> Iterator[dict]:
        """`ids` met and `dropped` rows of every shard."""
        for number in range(len(self.shards)):
            yield json.loads(files.read_text(self._side(number)))

    def references(self) -> Iterator[str]:
        """Images of the rows kept so far."""
        for shard in filter(None, self.shards):
            for batch in Dataset.from_file(str(self.folder / shard)).select_columns("images").iter(1000):
                for images in batch["images"]:
                    yield from images

    def clean(self, folder: Path) -> None:
        """Take the state out of the finished folder."""
        for number in range(len(self.shards)):
            (Path(folder) / self._side(number).name).unlink(missing_ok=True)
        (Path(folder) / PROGRESS).unlink(missing_ok=True)

    def _side(self, number: int) -> Path:
        return self.folder / f"side-{number:05}.json"

    def _clear(self) -> None:
        self._shard: arrowfolder.Shard | None = None
        self._ids: list[str] = []
        self._dropped: list[dict] = []

    def _resume(self) -> bool:
        try:
            state = files.read_json(self.folder / PROGRESS)
        except DataError:
            return False
        if state["asked"] != self.asked or state["source"] > len(self.sources):
            return False
        there = all((self.folder / shard).is_file() for shard in state["shards"] if shard)
        if not there or self._read(state["source"], state["mark"]) != state["read"]:
            return False
        self.source, self.mark, self.row = state["source"], state["mark"], state["row"]
        self.counts, self.shards = state["counts"], state["shards"]
        return True

    def _read(self, source: int, mark: int) -> str:
        """Hash of all that was read: the sources before `source`, and of it the bytes up to `mark`."""
        digests = []
        for number, file in enumerate(self.sources[: source + 1]):
            whole = number < source or file.suffix.lower() == ".parquet"
            end = file.stat().st_size if whole else mark
            digest = self._digests[number]
            with open(file, "rb") as stream:
                stream.seek(self._hashed[number])
                while (left := end - self._hashed[number]) > 0 and (data := stream.read(min(2**22, left))):
                    digest.update(data)
                    self._hashed[number] += len(data)
            digests.append(digest.hexdigest())
        return files.sha256(" ".join(digests))


def finished(folder: Path, asked: dict, inputs: list[dict]) -> dict | None:
    """The manifest of the same preparation if it is there; ParameterError for a folder that holds something else."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if not (folder / MANIFEST).is_file():
        raise ParameterError(f"{paths.shown(folder)} holds no prepared data. Name a new folder: it would be replaced")
    found = files.read_json(folder / MANIFEST)
    return found if (found.get("settings"), found.get("inputs")) == (asked, inputs) else None


def described(source: Path) -> dict:
    """What a manifest records of a file of rows: `file`, `size`, `sha256`; DataError where it is missing."""
    if not source.is_file():
        raise DataError(f"{paths.shown(source)} does not exist. Download it first")
    return {"file": paths.recorded(source), "size": source.stat().st_size, "sha256": files.file_hash(source)}


def stamp(place: Path) -> dict:
    """What tells whether a folder or zip of images is the one of before; DataError where it is missing."""
    if not place.exists():
        raise DataError(f"{paths.shown(place)} does not exist. Download the images, or name where they are")
    found = {"place": paths.recorded(place)}
    return found | ({"size": place.stat().st_size, "time": place.stat().st_mtime_ns} if place.is_file() else {})


def enough_disk(folder: Path, size: int) -> None:
    """RunError where the disk cannot hold what files of `size` bytes become, less what lies in `folder` already."""
    there = sum(shard.stat().st_size for shard in folder.glob("data-*.arrow"))
    need, free = (WRITTEN * size - there) / env.GB, env.free_gb(folder)
    if free < need:
        where = paths.shown(folder.parent)
        raise RunError(f"{where}: {need:.2f} GB are needed, {free:.2f} GB are free. Free some space and repeat")


@contextlib.contextmanager
def no_cycles() -> Iterator[None]:
    """Rows hold no reference cycles, and looking for some in millions of small objects takes half of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
