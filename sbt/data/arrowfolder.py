"""A datasets folder written in shards: what is there is whole, and a writer that was killed goes on behind the last.

`datasets.load_from_disk(folder)` maps it from the disk; so does `load`, row by row of the form of `sbt.data.llava`.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import pyarrow as pa

from sbt.utils import files, paths
from sbt.utils.errors import DataError

_TEXT = datasets.Value("string")
_PART = {"type": _TEXT, "text": _TEXT}
_FEATURES = {
    "id": _TEXT,
    "images": datasets.List(_TEXT),
    "messages": datasets.List({"role": _TEXT, "content": datasets.List(_PART)}),
}
TOKENS = "tokens"  # column of the rows' lengths, there where they were counted


def features(counted: bool) -> datasets.Features:
    """Columns of a prepared set."""
    return datasets.Features(_FEATURES | ({TOKENS: datasets.Value("int32")} if counted else {}))


class Shard:
    """One Arrow stream file, written batch by batch; until `close` it has another name. RunError: disk full."""

    def __init__(self, file: Path, counted: bool) -> None:
        self._schema = features(counted).arrow_schema
        self.file, self._part = Path(file), Path(file).with_name(f".{Path(file).name}.tmp")
        with files.writing(self.file):
            self._raw = open(self._part, "wb")  # noqa: SIM115 - closed by `close` or `drop`
        self._stream = pa.ipc.new_stream(self._raw, self._schema)

    def add(self, rows: Sequence[dict]) -> None:
        """Write rows, as one record batch."""
        columns = [pa.array([row[column.name] for row in rows], type=column.type) for column in self._schema]
        with self._writing():
            self._stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """Give the complete file its name."""
        with self._writing():
            self._stream.close()
            self._raw.close()
            self._part.replace(self.file)

    def drop(self) -> None:
        """Take away what was written."""
        with contextlib.suppress(OSError):  # a full disk refuses the rest of the buffer once more
            self._raw.close()
        self._part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with files.writing(self.file):
                yield
        except BaseException:
            self.drop()
            raise


def finish(folder: Path, shards: Sequence[str], counted: bool) -> None:
    """Make a folder of shards one that `datasets.load_from_disk` opens."""
    folder = Path(folder)
    state = {
        "_data_files": [{"filename": shard} for shard in shards],
        "_fingerprint": files.sha256(json.dumps([(s, (folder / s).stat().st_size) for s in shards]))[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    with files.writing(folder):
        datasets.DatasetInfo(features=features(counted)).write_to_directory(str(folder))
    files.write_json(folder / "state.json", state)


def load(folder: Path) -> datasets.Dataset:
    """The prepared rows, mapped from the disk; DataError where preparation has not finished."""
    folder = Path(folder)
    if not (folder / "state.json").is_file():
        raise DataError(f"{paths.shown(folder)}: no prepared data. Run the data preparation first")
    return datasets.load_from_disk(str(folder))
