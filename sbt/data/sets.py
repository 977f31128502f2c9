"""The training sets of a study: which files make each, fetched if need be, and their prepared rows.

found = find("cc3m-595k", downloads);  manifest = make(found, run.folder / "rows" / "pretrain", on_bad="skip")
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets

from sbt import paths
from sbt.data import arrowfolder, downloads, llava, samples
from sbt.data.prepare import prepare
from sbt.data.sources import SOURCES
from sbt.errors import DataError, MissingStep

ROWS = "rows"  # folder of the prepared sets below a data step's
HELDOUT = "eval/instruct_val.json"


@dataclass(frozen=True)
class Found:
    """What a set is made of: files of rows in one form, folders and zips of images."""

    files: tuple[Path, ...]
    images: tuple[Path, ...]
    form: str
    number_repeated: bool = False


def find(
    given: str,
    folder: Path,
    *,
    images: str = "",
    form: str = "llava",
    progress: Callable[..., None] | None = None,
) -> Found:
    """The files of a set: `given` is a name of `sources.SOURCES`, fetched to `folder`, or a file of the `form`.

    `images`, of the same two kinds, are where rows that name files find them; a source's own zips come besides.
    DataError where a file is not there, RunError where it cannot be fetched.
    """
    fetch = partial(downloads.fetch, folder=folder, progress=_named(progress))
    if given in SOURCES:
        source, there = SOURCES[given], fetch(given)
        files = tuple(there[file.name] for file in source.files if file.rows)
        zips = tuple(there[file.name] for file in source.files if not file.rows)
        form = next((file.rows for file in source.files if file.rows), form)
        if not files:
            raise DataError(f"{given} holds images only: name a set of rows, and {given} as their images")
    else:
        files, zips = (_there(given),), ()
    if images in SOURCES:
        zips += tuple(fetch(images).values())
    elif images:
        zips += (_there(images),)
    return Found(files, zips, form, given in SOURCES and SOURCES[given].number_repeated)


def make(found: Found, folder: Path, *, sample: int = 0, seed: int = 0, repeat: bool = False, **how: object) -> dict:
    """Check and write the rows to `folder` (`prepare`, with its arguments `how`), or a seeded sample of them.

    Returns the manifest, with `sample`, the sample in words, where one was drawn.
    """
    whole = folder.with_name(f"{folder.name}.all") if sample else folder
    same = {"form": found.form, "images": found.images, "number_repeated": found.number_repeated}
    manifest = prepare(found.files, whole, **same, **how)
    if not sample:
        return manifest
    drawn = samples.draw(arrowfolder.load(whole), sample, seed=seed, repeat=repeat, name=folder.name)
    drawn.rows.save_to_disk(str(folder))
    return manifest | {"sample": drawn.stated()}


def load(step: Path, name: str) -> datasets.Dataset:
    """Prepared rows of a data step, mapped from its folder; MissingStep where it prepared no such set."""
    folder = Path(step) / ROWS / name
    if not folder.is_dir():
        there = ", ".join(sorted(path.name for path in folder.parent.glob("*"))) or "none"
        raise MissingStep(f"{paths.shown(folder)} does not exist ({there} prepared): name the set's data in that step")
    return arrowfolder.load(folder)


def heldout(step: Path) -> list[dict]:
    """Visual instructions about pictures that no training set has, where the data step wrote any (the micro-world)."""
    file = Path(step) / HELDOUT
    return llava.load(file, Path(step) / "images", decode=False) if file.is_file() else []


def _named(progress: Callable[..., None] | None) -> Callable[[str, int, int], None] | None:
    return progress and (lambda file, done, total: progress(done, total, file=file))


def _there(name: str) -> Path:
    path = paths.resolve(name)
    if not path.exists():
        raise DataError(f"{paths.shown(path)} does not exist: put it there, or name one of {', '.join(SOURCES)}")
    return path
