"""The training sets of a study: which files make each, fetched if need be, and their prepared rows.

found = find("cc3m-595k", downloads);  manifest = make(found, run.folder / "rows" / "pretrain", on_bad="skip")
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets

from sbt.data import arrowfolder, download, llava, samples
from sbt.data.prepare import prepare
from sbt.data.registry import SOURCES, Source
from sbt.utils import paths
from sbt.utils.errors import DataError, MissingStep

ROWS = "rows"  # folder of the prepared sets below a data step's
HELDOUT = "eval/instruct_val.json"  # the micro-world's visual instructions about pictures of no training set
ASIDE = "heldout"  # the set of those that were taken out of a published one


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
    """The files of a set: `given` is a name of `registry.SOURCES`, fetched to `folder`, or a file of the `form`.

    A file named as one of a source, put there by hand say, has that one's form and may repeat ids as it does.
    `images`, of the same two kinds, are where rows that name files find them; a source's own zips come besides.
    DataError where a file is not there, RunError where it cannot be fetched.
    """
    fetch = partial(download.fetch, folder=folder, progress=_named(progress))
    source = SOURCES.get(given) or _of(Path(given).name)
    if given in SOURCES:
        there = fetch(source)
        files = tuple(there[file.name] for file in source.files if file.rows)
        zips = tuple(there[file.name] for file in source.files if not file.rows)
        form = next((file.rows for file in source.files if file.rows), form)
        if not files:
            raise DataError(f"{given} holds images only: name a set of rows, and {given} as their images")
    else:
        files, zips = (_there(given),), ()
        form = next((file.rows for file in source.files if file.name == files[0].name), form) if source else form
    if images in SOURCES:
        zips += tuple(fetch(SOURCES[images]).values())
    elif images:
        zips += (_there(images),)
    return Found(files, zips, form, source is not None and source.number_repeated)


def make(
    found: Found, folder: Path, *, sample: int = 0, aside: int = 0, seed: int = 0, repeat: bool = False, **how: object
) -> dict:
    """Check and write the rows to `folder` (`prepare`, with its arguments `how`), or a seeded sample of them.

    `aside` rows, and all others about their pictures, go to the set ASIDE beside it before a sample is drawn. Returns
    the manifest, with `sample`, what was drawn and set aside in words.
    """
    whole = folder.with_name(f"{folder.name}.all") if sample or aside else folder
    same = {"form": found.form, "images": found.images, "number_repeated": found.number_repeated}
    manifest = prepare(found.files, whole, **same, **how)
    rows, said = arrowfolder.load(whole), []
    with samples.quiet():
        if aside:
            rows, kept = samples.set_aside(rows, aside, seed=seed)
            kept.save_to_disk(str(folder.with_name(ASIDE)))
            said.append(f"{len(kept):,} rows set aside")
        if sample:
            drawn = samples.draw(rows, sample, seed=seed, repeat=repeat, name=folder.name)
            rows = drawn.rows
            said.append(drawn.stated())
        if said:
            rows.save_to_disk(str(folder))
    return manifest | ({"sample": "; ".join(said)} if said else {})


def load(step: Path, name: str) -> datasets.Dataset:
    """Prepared rows of a data step, mapped from its folder; MissingStep where it prepared no such set."""
    folder = Path(step) / ROWS / name
    if not folder.is_dir():
        there = ", ".join(sorted(path.name for path in folder.parent.glob("*"))) or "none"
        raise MissingStep(f"{paths.shown(folder)} does not exist ({there} prepared): name the set's data in that step")
    return arrowfolder.load(folder)


def heldout(step: Path) -> list[dict]:
    """Visual instructions about pictures that no set of instructions to train on has, where the data step kept any."""
    if (aside := Path(step) / ROWS / ASIDE).is_dir():
        return arrowfolder.load(aside).to_list()
    file = Path(step) / HELDOUT
    return llava.load(file, Path(step) / "images", decode=False) if file.is_file() else []


def _named(progress: Callable[..., None] | None) -> Callable[[str, int, int], None] | None:
    return progress and (lambda file, done, total: progress(done, total, file=file))


def _of(name: str) -> Source | None:
    """The source one of whose files of rows has this name."""
    return next((one for one in SOURCES.values() for file in one.files if file.rows and file.name == name), None)


def _there(name: str) -> Path:
    path = paths.resolve(name)
    if not path.exists():
        raise DataError(f"{paths.shown(path)} does not exist: put it there, or name one of {', '.join(SOURCES)}")
    return path
