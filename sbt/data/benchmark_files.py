"""A vision benchmark's published files where a parameter says "hub": downloaded once, checked, unpacked as needed.

folder = questions(FILES, p.pope_data, run.progress);  images = pictures(FILES, p.pope_data, p.images, names)
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sbt.data import download
from sbt.data.image_zip import ImageZip, open_zip
from sbt.data.registry import HUB, BenchmarkFiles, Source
from sbt.utils import env, files, paths
from sbt.utils.errors import DataError, RunError

QUESTIONS = "questions"  # below a source's downloads
Progress = Callable[..., None] | None


def questions(published: BenchmarkFiles, given: Path | str, progress: Progress = None) -> Path | str:
    """What `given` names, or where it is "hub" the published question file, or the folder of several, unpacked.

    `progress(done, total, file=...)` while something is fetched. RunError where a file cannot be had: why, from where,
    and what to do instead.
    """
    if given != HUB:
        return given
    source = published.questions
    fetched = _fetched(source, f"name files of your own for {source.name} instead of {HUB!r}", progress)
    folder = paths.downloads() / source.name / QUESTIONS
    if published.beside:
        return _whole(fetched, published.beside, folder)
    for name in published.names:
        _question_file(name, fetched, folder / name)
    return folder / published.names[0] if len(published.names) == 1 else folder


def pictures(
    published: BenchmarkFiles,
    given: str,
    images: str,
    names: Iterable[str] | Mapping[str, Iterable[str]],
    progress: Progress = None,
) -> Path | str:
    """The folder `images`, or a folder with the published pictures where `images`, or `given` without it, is "hub".

    `names` are the pictures wanted, by task where tasks have different sources. They are unpacked from the zip once,
    only those asked for; one that the zip does not have stays missing, for `evaluate.keep_usable` to judge. RunError
    where the zip cannot be had, or the disk is too small.
    """
    if images != HUB and (images or given != HUB):
        return images
    if not isinstance(published.pictures, Mapping):
        return _pictures(published, published.pictures, published.pictures.name, names, progress)
    for task, wanted in names.items():
        folder = _pictures(published, published.pictures[task], published.questions.name, wanted, progress)
    return folder


def _pictures(
    published: BenchmarkFiles, source: Source, folder: str, names: Iterable[str], progress: Progress
) -> Path:
    remedy = f"set images to a folder with the pictures of {published.questions.name}"
    fetched = _fetched(source, remedy, progress)
    if published.beside:
        return _whole(fetched, published.beside, paths.downloads() / published.questions.name / QUESTIONS)
    to = paths.downloads() / folder / "pictures"
    opened = _zip(fetched)
    members = {to / name: member for name in sorted(set(names)) if (member := opened.find(name))}
    _unpack(opened, members, progress)
    return to


def captions(
    sources: Mapping[str, Mapping], published: Mapping[str, BenchmarkFiles], progress: Progress = None
) -> dict[str, dict]:
    """`benchmarks.captions.sources` with the file of references in place of "hub"; `pictures` takes the `images`."""
    return {
        name: {
            **source,
            "references": questions(published[name], source["references"], progress),
            "images": source["images"] or (HUB if source["references"] == HUB else ""),
        }
        for name, source in sources.items()
    }


def _fetched(source: Source, instead: str, progress: Progress) -> dict[str, Path]:
    told = progress and (lambda file, done, total: progress(done, total, file=file))
    try:
        return download.fetch(source, paths.downloads(), progress=told)
    except RunError as error:
        raise RunError(f"{error}\nOr {instead}") from error


def _zip(found: Mapping[str, Path]) -> ImageZip:
    (file,) = found.values()
    return open_zip(str(file))


def _question_file(name: str, found: Mapping[str, Path], to: Path) -> None:
    """A question file, downloaded as it is or from one of the zips."""
    if name in found:
        if not _there(to, found[name].stat().st_size):
            files.write_bytes(to, found[name].read_bytes())
        return
    for file in found.values():
        opened = open_zip(str(file))
        if member := opened.find(name):
            _unpack(opened, {to: member})
            return
    raise DataError(
        f"{', '.join(map(paths.shown, found.values()))}: there is no {name} in it. Did its owner change it?"
    )


def _whole(found: Mapping[str, Path], beside: str, folder: Path) -> Path:
    """All that lies in the zip's folder that holds the folder `beside`; what macOS and others add lies elsewhere."""
    opened = _zip(found)
    names = list(opened.sizes())
    starts = {f"/{name}".partition(f"/{beside}/")[0] for name in names if f"/{beside}/" in f"/{name}"}
    if not starts:
        raise DataError(f"{paths.shown(opened.file)}: there is no folder {beside} in it. Did its owner change it?")
    start = f"{min(starts, key=len)}/".removeprefix("/")
    _unpack(opened, {folder / name.removeprefix(start): name for name in names if name.startswith(start)})
    return folder


def _unpack(opened: ImageZip, members: Mapping[Path, str], progress: Progress = None) -> None:
    """Write members to their files, but for those that are there; the disk is checked first."""
    sizes = opened.sizes()
    missing = {file: name for file, name in members.items() if not _there(file, sizes[name])}
    if not missing:
        return
    need = download.SPARE * sum(sizes[name] for name in missing.values()) / env.GB
    env.check_space(next(iter(missing)).parent, need, f" to unpack {len(missing)} files of {opened.file.name}")
    for done, (file, name) in enumerate(missing.items(), start=1):
        files.write_bytes(file, opened.read(name))
        if progress:
            progress(done, len(missing), file=opened.file.name)


def _there(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size
