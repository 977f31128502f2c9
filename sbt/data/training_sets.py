"""The training sets of a study: which files make each, their prepared rows, seeded samples, text-only twins.

found = find("cc3m-595k", downloads);  manifest = make(found, run.folder / "rows" / "pretrain", on_bad="skip")
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import datasets

from sbt.data import conversations, download
from sbt.data.prepare import TOKENS, prepare, quiet
from sbt.data.prepare import load as load_rows
from sbt.data.registry import SOURCES, Source
from sbt.utils import paths
from sbt.utils.errors import DataError, MissingStep, ParameterError

ROWS = "rows"  # folder of the prepared sets below a data step's
HELDOUT = "eval/instruct_val.json"  # the micro-world's visual instructions about pictures of no training set
ASIDE = "heldout"  # the set of those that were taken out of a published one
Rows = Sequence[dict] | datasets.Dataset


@dataclass(frozen=True)
class SetFiles:
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
    number_repeated: bool = False,
    progress: Callable[..., None] | None = None,
) -> SetFiles:
    """The files of a set: `given` is a name of `registry.SOURCES`, fetched to `folder`, or a file of the `form`.

    A file named as one of a source, put there by hand say, has that one's form and may repeat ids as it does;
    `number_repeated` allows it for any other.
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
    return SetFiles(files, zips, form, number_repeated or (source is not None and source.number_repeated))


def make(
    found: SetFiles,
    folder: Path,
    *,
    sample: int = 0,
    aside: int = 0,
    seed: int = 0,
    repeat: bool = False,
    **how: object,
) -> dict:
    """Check and write the rows to `folder` (`prepare`, with its arguments `how`), or a seeded sample of them.

    `aside` rows, and all others about their pictures, go to the set ASIDE beside it before a sample is drawn. Returns
    the manifest, with `sample`, what was drawn and set aside in words.
    """
    whole = folder.with_name(f"{folder.name}.all") if sample or aside else folder
    same = {"form": found.form, "images": found.images, "number_repeated": found.number_repeated}
    manifest = prepare(found.files, whole, **same, **how)
    rows, said = load_rows(whole), []
    with quiet():
        if aside:
            rows, kept = set_aside(rows, aside, seed=seed)
            kept.save_to_disk(str(folder.with_name(ASIDE)))
            said.append(f"{len(kept):,} rows set aside")
        if sample:
            drawn = draw(rows, sample, seed=seed, repeat=repeat, name=folder.name)
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
    return load_rows(folder)


def heldout(step: Path) -> list[dict]:
    """Visual instructions about pictures that no set of instructions to train on has, where the data step kept any."""
    if (aside := Path(step) / ROWS / ASIDE).is_dir():
        return load_rows(aside).to_list()
    file = Path(step) / HELDOUT
    return conversations.load(file, Path(step) / "images", decode=False) if file.is_file() else []


class Sample(NamedTuple):
    """Rows, their sorted `positions` in the set they were drawn from, and `counts` of different and duplicate ones."""

    rows: Rows
    positions: list[int]
    counts: dict[str, int]

    def stated(self) -> str:
        """What it is, in words: duplicates are never passed over."""
        of = f"{self.counts['rows']:,} rows of {self.counts['of']:,}"
        if not self.counts["duplicates"]:
            return f"{of}, none twice"
        most = self.counts["most_copies"]
        return (
            f"{of}: {self.counts['duplicates']:,} are duplicates, {self.counts['different']:,} rows 1 to {most} times"
        )


def draw(rows: Rows, n: int, *, seed: int, repeat: bool = False, name: str = "rows") -> Sample:
    """`n` rows without replacement, in their order in the set: the trainer shuffles.

    `repeat`: more rows than there are may be asked for; every row then comes n // size times, and the rest is drawn
    without replacement (the paper's "80K" of Alpaca's 52K). Copies are called `ID#2`, `ID#3`. ParameterError where
    `n` is not positive, or larger than the set without `repeat`.
    """
    size = len(rows)
    if n < 1 or (n > size and not repeat) or not size:
        words = f"{n:,} of {size:,} {name} cannot be drawn without repeating some"
        raise ParameterError(f"{words}: ask for 1 to {size:,}, or set repeat to get stated duplicates")
    whole, rest = divmod(n, size)
    positions = sorted([*range(size)] * whole + random.Random(f"{seed}/{name}").sample(range(size), rest))
    most = whole + bool(rest)
    counts = {"rows": n, "of": size, "different": min(n, size), "duplicates": max(0, n - size), "most_copies": most}
    return Sample(_take(rows, positions), positions, counts)


def set_aside(rows: Rows, n: int, *, seed: int) -> tuple[Rows, Rows]:
    """The rows to train on, and `n` or a few more with an image that are kept from it.

    Drawn by image: a picture's rows all go the same way, for one that was trained on is no held-out one.
    ParameterError where fewer than `n` rows have an image, or none would be left.
    """
    of_image: dict[str, list[int]] = {}
    for position, names in enumerate(_column(rows, "images")):
        for name in names:
            of_image.setdefault(name, []).append(position)
    order = sorted(of_image)
    random.Random(f"{seed}/aside").shuffle(order)
    chosen: set[int] = set()
    while order and len(chosen) < n:
        chosen.update(of_image[order.pop()])
    left = [position for position in range(len(rows)) if position not in chosen]
    if len(chosen) < n or not left:
        raise ParameterError(
            f"{n:,} of {len(rows):,} rows cannot be set aside: too few have an image, or none is left"
        )
    return _take(rows, left), _take(rows, sorted(chosen))


def twin(rows: Rows) -> Rows:
    """`conversations.text_twin` of a list or of a mapped set: same ids, same order, no images."""
    if not isinstance(rows, datasets.Dataset):
        return conversations.text_twin(rows)
    with quiet():
        blind = rows.remove_columns([TOKENS] if TOKENS in rows.column_names else [])  # they counted the images in
        return blind.map(lambda row: conversations.text_twin([row])[0], features=blind.features)


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


def _column(rows: Rows, name: str) -> Iterable:
    return rows[name] if isinstance(rows, datasets.Dataset) else [row[name] for row in rows]


def _take(rows: Rows, positions: Sequence[int]) -> Rows:
    copies: Counter = Counter()
    suffixes = []
    for position in positions:
        copies[position] += 1
        suffixes.append(f"#{copies[position]}" if copies[position] > 1 else "")
    if not isinstance(rows, datasets.Dataset):
        return [rows[at] | {"id": rows[at]["id"] + suffix} for at, suffix in zip(positions, suffixes, strict=True)]
    taken = rows.select(positions)
    if not any(suffixes):
        return taken
    names = [name + suffix for name, suffix in zip(taken["id"], suffixes, strict=True)]
    order = taken.column_names
    with quiet():
        return taken.remove_columns("id").add_column("id", names).select_columns(order)
