"""The training sets of a study: which files make each, their prepared rows, seeded samples, text-only twins.

found = find("cc3m-595k", downloads);  manifest = make(found, run.folder / "rows" / "pretrain", on_bad="skip")
"""

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import datasets
import huggingface_hub

from sbt.data import conversations, download, ranges
from sbt.data.image_zip import open_zip, safe
from sbt.data.json_stream import reader
from sbt.data.prepare import TOKENS, prepare, quiet
from sbt.data.prepare import load as load_rows
from sbt.data.registry import SOURCES, File, Source, hub_file
from sbt.study.estimate import FEW
from sbt.utils import hub, paths
from sbt.utils.errors import DataError, MissingStep, ParameterError

ROWS = "rows"  # folder of the prepared sets below a data step's
HELDOUT = "eval/instruct_val.json"  # the micro-world's visual instructions about pictures of no training set
SHARE, MORE = 0.1, 100  # rows looked at beyond a sample's size, since some cannot be used: a share, and a number
IMAGES = {"pretrain": "pretrain_images", "instruct": "instruct_images_from"}  # parameters of the sets' images
ASIDE = "heldout"  # the set of those that were taken out of a published one
Rows = Sequence[dict] | datasets.Dataset


@dataclass(frozen=True)
class SetFiles:
    """What a set is made of: files of rows in one form, folders and zips of images.

    `outlines`: those of the zips of which only the members that a sample names are fetched, with where from.
    """

    files: tuple[Path, ...]
    images: tuple[Path, ...]
    form: str
    number_repeated: bool = False
    outlines: Mapping[Path, File] = field(default_factory=dict)


def find(
    given: str,
    folder: Path,
    *,
    images: str = "",
    form: str = "llava",
    number_repeated: bool = False,
    sample: int = 0,
    progress: Callable[..., None] | None = None,
) -> SetFiles:
    """The files of a set: `given` is a source's name or a data set's on the Hub, fetched, or a file of the `form`.

    A file named as one of a source, put there by hand say, has that one's form and may repeat ids as it does;
    `number_repeated` allows it for any other.
    `images`, of the same kinds, are where rows that name files find them; a source's own zips come besides.
    For a `sample` of FEW rows a zip that is not here stays where it is: `make` fetches the members that the rows name.
    DataError where a file is not there, RunError where it cannot be fetched.
    """
    told, outlines = _named(progress), {}
    published = _published(given, form)
    source = published or _of(Path(given).name)
    zips: list[Path] = []
    if published:
        there = download.fetch(source, folder, only=lambda file: bool(file.rows), progress=told)
        if not there:
            raise DataError(f"{given} holds images only: name a set of rows, and {given} as their images")
        files = tuple(there.values())
        form = next(file.rows for file in source.files if file.rows)
        zips += _zips(source, folder, sample, outlines, told)
    else:
        files = (_there(given),)
        form = next((file.rows for file in source.files if file.name == files[0].name), form) if source else form
    if of_images := _published(images, form):
        zips += _zips(of_images, folder, sample, outlines, told)
    elif images:
        zips.append(_there(images))
    repeated = number_repeated or (source is not None and source.number_repeated)
    return SetFiles(files, tuple(zips), form, repeated, outlines)


def _zips(
    source: Source, folder: Path, sample: int, outlines: dict[Path, File], told: download.Progress | None
) -> list[Path]:
    """A source's zips; for a sample the outlines of those that are not here, unless their server gives whole files."""
    found = []
    for file in (file for file in source.files if not file.rows):
        if 0 < sample <= FEW and file.mirrors and not download.here(source, file, folder):
            try:
                outlines[outline := ranges.outline(file, folder / source.name)] = file
                found.append(outline)
                continue
            except ranges.NoRanges:  # then all of it
                pass
        found += download.fetch(source, folder, only=lambda one, file=file: one is file, progress=told).values()
    return found


def _published(given: str, form: str) -> Source | None:
    """The source of a name, of the registry or of the Hub (`owner/name@revision`); None for what lies here.

    Of a repository, the one file of rows at its top is taken, and all of its zips. DataError where there are several.
    """
    if given in SOURCES or not hub.is_name(given):
        return SOURCES.get(given)
    repo, _ = hub.split(given)
    revision = hub.commit(hub.DATASETS + given)
    try:
        if download.offline_mode():
            top = Path(huggingface_hub.snapshot_download(repo, repo_type="dataset", revision=revision))
            sizes = {file.name: file.stat().st_size for file in top.iterdir()}
        else:
            info = huggingface_hub.HfApi().dataset_info(repo, revision=revision, files_metadata=True)
            sizes = {file.rfilename: file.size or 0 for file in info.siblings if "/" not in file.rfilename}
    except Exception as error:  # of many libraries
        raise DataError(f"data set {given} cannot be had: {download.reason(error)}") from error
    rows = [name for name in sizes if name.endswith((".json", ".jsonl", ".parquet")) and "info" not in name]
    if len(rows) != 1:
        found = ", ".join(rows) or "none"
        words = f"{given}: one file of rows is wanted at its top, found {found}"
        raise DataError(f"{words}. Fetch the right one, and name that file")
    names = rows + [name for name in sizes if name.endswith(".zip")]
    files = tuple(hub_file((repo, revision), name, sizes[name], rows=form * (name in rows)) for name in names)
    return Source(given.replace("/", "--"), given, files)


def wanted(values: Mapping[str, object], folder: Path) -> Iterator[tuple[str, int | None, Callable[[], object]]]:
    """What a data step with these parameters fetches: in words, its bytes (None: not known), and how."""
    for name in ("pretrain", "instruct", "alpaca", "orca"):
        given, images = str(values.get(f"{name}_data", "")), str(values.get(IMAGES.get(name, ""), "") or "")
        if not given or not any(one in SOURCES or hub.is_name(one) for one in (given, images)):
            continue
        sample, aside = sample_of(values, name)
        words = f"data {given}{f' with {images}' if images else ''}{f', a sample of {sample:,}' if sample else ''}"
        form = name if name in ("alpaca", "orca") else "llava"
        parts: list[Source] = []
        with contextlib.suppress(DataError):  # fetching it gives the reason
            parts = [source for one in (given, images) if (source := _published(one, form))]
        whole = [file for one in parts for file in one.files if not file.rows and not download.here(one, file, folder)]
        sizes = [download.missing_size(one, folder) for one in parts]
        size = None if not parts or (0 < sample <= FEW and whole) or None in sizes else sum(sizes)
        how = (sample, aside), values.get("seed", 0), name
        yield words, size, partial(_fetch_set, given, folder, images, form, *how)


def whole(values: Mapping[str, object]) -> list[Source]:
    """The registry's sources that a data step with these parameters fetches whole: of a sample's, the rows alone."""
    found = []
    for name in ("pretrain", "instruct", "alpaca", "orca"):
        for given in (values.get(f"{name}_data"), values.get(IMAGES.get(name, ""))):
            if given in SOURCES:
                source, (sample, _) = SOURCES[given], sample_of(values, name)
                files = tuple(file for file in source.files if file.rows or not 0 < sample <= FEW)
                found.append(replace(source, files=files))
    return found


def sample_of(values: Mapping[str, object], name: str) -> tuple[int, int]:
    """How many rows of a set a data step with these parameters draws (0: all), and how many it sets aside."""
    sample = values.get("pretrain_sample" if name == "pretrain" else "sample", 0)
    return sample, values.get("aside", 0) if name == "instruct" else 0


def _fetch_set(
    given: str, folder: Path, images: str, form: str, drawn: tuple[int, int], seed: int, name: str
) -> None:
    sample, aside = drawn
    found = find(given, folder, images=images, form=form, sample=sample)
    if found.outlines:
        _fetch_images(found, _chosen(_size(found), sample + aside, seed, name), None)


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
    n, more = sample and sample + aside, 1
    size = _size(found) if n else 0
    while True:
        chosen = _chosen(size, n, seed, folder.name, more) if n else None
        _fetch_images(found, chosen, how.get("progress"))
        manifest = prepare(found.files, whole, only=chosen, **same, **how)
        if chosen is None or manifest["counts"]["kept"] >= n:
            break
        more *= 4  # more rows than expected could not be used
    rows, said = load_rows(whole), []
    with quiet():
        if aside:
            rows, kept = set_aside(rows, aside, seed=seed)
            kept.save_to_disk(str(folder.with_name(ASIDE)))
            said.append(f"{len(kept):,} rows set aside")
        if sample:
            drawn = draw(rows, sample, seed=seed, repeat=repeat, name=folder.name)
            rows = drawn.rows
            of = {"of": size} if chosen else {}
            said.append(drawn._replace(counts=drawn.counts | of).stated())
        if said:
            rows.save_to_disk(str(folder))
    return manifest | ({"sample": "; ".join(said)} if said else {})


def _size(found: SetFiles) -> int:
    return sum(1 for file in found.files for _ in reader(file))


def _chosen(size: int, n: int, seed: int, name: str, more: int = 1) -> set[int] | None:
    """Places, of `size` rows, of those that a sample of `n` is drawn from: a few more than that; None for all.

    So no other row is tokenized, and no other picture fetched.
    """
    wanted = n + more * (int(SHARE * n) + MORE)
    return set(random.Random(f"{seed}/{name}/rows").sample(range(size), wanted)) if wanted < size else None


def _fetch_images(found: SetFiles, chosen: set[int] | None, progress: Callable[..., None] | None) -> None:
    """Fetch the members of zips known by their outline that the chosen rows name; bad rows are `prepare`'s to tell."""
    if not found.outlines:
        return
    parse, place, names = conversations.parser(found.form), 0, {}
    for file in found.files:
        faults = conversations.Faults(file)
        for position, entry in reader(file):
            if chosen is None or place in chosen:
                with contextlib.suppress(conversations.BadRow):
                    names |= dict.fromkeys(parse(entry, position, faults.at(position, entry))["images"])
            place += 1
    for outline, file in found.outlines.items():
        opened, members = open_zip(str(outline)), []
        for name in filter(safe, names):
            with contextlib.suppress(DataError):
                members.append(opened.find(name))
        ranges.fetch(outline, file, filter(None, members), _named(progress))


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
