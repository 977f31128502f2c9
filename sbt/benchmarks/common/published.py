"""Published files of the text benchmarks, downloaded once, of a pinned revision and with their digests."""

from pathlib import Path

from pyarrow import parquet

from sbt.data import download
from sbt.data.registry import Source
from sbt.utils import paths
from sbt.utils.errors import RunError


def published_file(source: Source, name: str) -> Path:
    """One file of a source, downloaded once, of its pinned revision and with its digest.

    RunError names every place that was asked, what each said, and what to do instead.
    """
    try:
        files = download.fetch(
            source, paths.downloads(), only=lambda file: file.name == name, progress=lambda *told: None
        )
    except RunError as error:
        raise RunError(f"{error}\nOr set the data parameter to a folder with the publishers' files") from error
    return files[name]


def parquet_rows(source: Source, name: str) -> list[dict]:
    """The rows of one Parquet file of a source, as `published_file` fetches it."""
    return parquet.read_table(published_file(source, name)).to_pylist()
