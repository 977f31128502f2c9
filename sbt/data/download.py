"""Published files downloaded once, whole and checked: size shown and disk checked first, mirrors, resumable.

files = fetch(source, folder) gives {name: path}; `plan` shows what that costs, `room` whether the disks hold it.
"""

import email.utils
import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import huggingface_hub
import pandas as pd
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors
from tqdm.std import tqdm

from sbt.data.registry import File, Mirror, Source
from sbt.utils import env, files, hub, paths
from sbt.utils.errors import DataError, RunError, SbtError

LARGER_DISK = "Free some space, or set HF_HOME to a folder on a larger disk"
RECORD = "downloads.json"  # file name -> mirror, size, time, sha256: what later fetches insist on
SPARE = 1.02  # disk asked for, over what the files take
PIECE = 2**20  # bytes read from the web at a time
TRIES = 5  # times that a connection is taken up again
TIMEOUT = 30.0  # seconds without a byte
PATIENCE = 600.0  # seconds that a busy server's Retry-After is obeyed; a longer wait is the user's to decide
OFF = 0.2  # share that a file's size may differ from the size that its publisher's page shows
AGENT = {"User-Agent": "sight-beyond-text"}  # some refuse Python's own
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
Progress = Callable[[str, int, int], None]
T = TypeVar("T")


class Room(NamedTuple):
    """What a disk is to take: the folder on it, gigabytes that are fetched to it and that are free, and of what."""

    folder: Path
    need: float
    free: float
    sizes: str

    def __str__(self) -> str:
        return f"{paths.shown(self.folder)}: {self.need:.1f} GB are needed ({self.sizes}), {self.free:.1f} GB are free"


def plan(source: Source, folder: Path) -> pd.DataFrame:
    """By file of a source: `GB`, `here` (it need not be fetched), `from` where, `digest` and who says so.

    Here is what was checked before, and what is in the Hub's cache, which is checked when it is used.
    """
    record = _record(Path(folder) / source.name)
    rows = []
    for file in source.files:
        digest, says = _expected(file, record)
        rows.append(
            {
                "file": file.name,
                "GB": round(file.size / env.GB, 2) if file.size else None,
                "here": _here(file, record) is not None or _cached(file),
                "from": file.mirrors[0].shown() if file.mirrors else source.page,
                "digest": digest[:19] if digest else "",
                "pinned by": says,
            }
        )
    return pd.DataFrame(rows)


def fetch(
    source: Source,
    folder: Path,
    *,
    only: Callable[[File], bool] | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Files of a source, by name, each whole and with the digest of the registry or of the fetch before.

    Hub files stay in the Hub's cache, others go to `folder/name`, where RECORD keeps what was found: a file without a
    published hash is compared with what the Hub reports, and must stay what it was first. `only` picks files.
    `progress(file, bytes done, bytes)`; without it the Hub shows its own bars. An interrupted fetch goes on. With
    HF_HUB_OFFLINE set nothing is asked for. RunError: disk too small, or no mirror gives the file, all named.
    """
    folder = Path(folder) / source.name  # of its own: several sources have an images.zip
    wanted = [file for file in source.files if only is None or only(file)]
    record = _record(folder)
    found = {file.name: _here(file, record) for file in wanted}
    missing = [file for file in wanted if found[file.name] is None]
    for one in _rooms(missing, folder.parent):
        if one.need > one.free:
            raise RunError(str(one))
    for file in missing:
        path, mirror, sha = _from_somewhere(file, source, folder, record, progress)
        size, time = path.stat().st_size, path.stat().st_mtime_ns
        record[file.name] = {"mirror": mirror, "path": str(path), "size": size, "time": time, "sha256": sha}
        files.write_json(folder / RECORD, record)
        found[file.name] = path
    return {file: path for file, path in found.items() if path is not None}


def room(sources: Iterable[Source], folder: Path) -> list[Room]:
    """What sources that are still to be fetched take of each disk: Hub files of its cache's, others of `folder`'s."""
    records = {source: _record(Path(folder) / source.name) for source in sources}
    wanted = [file for source, record in records.items() for file in source.files if _here(file, record) is None]
    return _rooms(wanted, Path(folder))


def missing_size(source: Source, folder: Path) -> int | None:
    """Bytes of a source that are still to be fetched; None where a size is not known."""
    record = _record(Path(folder) / source.name)
    sizes = [file.size for file in source.files if _here(file, record) is None and not _cached(file)]
    return None if 0 in sizes else sum(sizes)


def here(source: Source, file: File, folder: Path) -> bool:
    """Whether a file of a source need not be fetched."""
    folder = Path(folder) / source.name
    return _here(file, _record(folder)) is not None or _cached(file) or (folder / file.name).is_file()


def _rooms(missing: Iterable[File], folder: Path) -> list[Room]:
    """By filesystem: a cache in the home folder may be on another one than the results."""
    found: dict[int, tuple[Path, list[File]]] = {}
    for file in missing:
        if file.mirrors and not _cached(file):
            to = Path(constants.HF_HUB_CACHE) if file.mirrors[0].repo else folder
            found.setdefault(_filesystem(to), (to, []))[1].append(file)
    return [
        Room(
            to,
            SPARE * sum(file.size for file in coming) / env.GB,
            env.free_gb(to),
            ", ".join(f"{file.name} {file.size / env.GB:.1f} GB" for file in coming),
        )
        for to, coming in found.values()
    ]


def _filesystem(folder: Path) -> int:
    """The disk that a folder is on, or will be."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder.stat().st_dev


def _from_somewhere(
    file: File, source: Source, folder: Path, record: dict, progress: Progress | None
) -> tuple[Path, str, str]:
    """The file from the first mirror that gives it whole, that mirror in words, and its SHA-256."""
    by_hand, failures = folder / file.name, []
    for mirror in ((None,) if by_hand.is_file() else ()) + file.mirrors:
        shown = mirror.shown() if mirror else paths.shown(by_hand)
        try:
            path = _from(mirror, file, folder, progress) if mirror else by_hand
            return path, shown, _checked(path, file, mirror, record)
        except RunError:
            raise  # a disk that is full is full for the next mirror, too
        except Exception as error:  # the Hub's and the network's errors are of many types: each is shown
            if isinstance(error, OSError) and error.errno in files.FULL:
                raise RunError(f"{file.name}: the disk is full. Free some space and repeat: it goes on") from error
            failures.append(f"  {shown}: {reason(error)}")
    offline = " (HF_HUB_OFFLINE is set)" if offline_mode() else ""
    remedy = f"Repeat, or put it to {paths.shown(by_hand)} by hand" + (f", from {source.page}" if source.page else "")
    note = [f"  {source.note}"] if not file.mirrors else []
    raise RunError("\n".join([f"{file.name} cannot be had{offline}:", *failures, *note, remedy]))


def _from(mirror: Mirror, file: File, folder: Path, progress: Progress | None) -> Path:
    told = partial(progress, file.name) if progress else None
    if mirror.repo:  # resumable; offline it looks into its cache only
        revision = mirror.revision or hub.commit(hub.DATASETS + mirror.repo)
        where = {"repo_type": "dataset", "revision": revision, "tqdm_class": told and _bar(told)}
        return Path(huggingface_hub.hf_hub_download(mirror.repo, mirror.path, **where))
    if offline_mode():
        raise DataError("not asked for")
    return fetch_url(mirror.url, folder / file.name, told)


def _bar(told: Callable[[int, int], None]) -> type[tqdm]:
    """A bar for the Hub's library that shows nothing and tells instead: a notebook has one kind of progress."""

    class Told(tqdm):
        def __init__(self, *words: object, **options: object) -> None:
            super().__init__(*words, **options | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self.total:
                told(int(self.n), int(self.total))

    return Told


def _cached(file: File) -> bool:
    """Whether the Hub's cache has the file, of the revision wanted: it takes no more of the disk."""
    return any(one.repo and hub.cached(one.repo, one.path, one.revision, "dataset") for one in file.mirrors)


def _checked(path: Path, file: File, mirror: Mirror | None, record: dict) -> str:
    """SHA-256 of a file that is what it should be; one that is not is taken away, unless it was put there by hand."""
    if problem := _implausible(path, file, sized=mirror is None or not mirror.repo):
        _take_away(path, mirror)
        raise DataError(problem)
    expected, says = _expected(file, record)
    if not expected and (told := _told_by_hub(path)):
        expected, says = f"sha256:{told}", "the Hub"
    with open(path, "rb") as stream:
        digests = {"sha256": hashlib.sha256(), **({"md5": hashlib.md5()} if expected.startswith("md5:") else {})}
        while data := stream.read(2**22):
            for digest in digests.values():
                digest.update(data)
    kind, _, value = expected.partition(":")
    if expected and (got := digests[kind].hexdigest()) != value:
        _take_away(path, mirror)
        words = f"its {kind} is {got}, but {says} says {value}: damaged, or changed by its owner"
        accept = f". To take a changed file, remove its entry from {RECORD}" if says == RECORD else ""
        raise DataError(words + accept)
    return digests["sha256"].hexdigest()


def _implausible(path: Path, file: File, sized: bool = True) -> str:
    """Why a file cannot be what it is named, empty if it can: a log-in or error page, another size, no zip.

    `sized`: the expected size counts. The Hub's own files are held to the size and hash that the Hub tells.
    """
    with open(path, "rb") as stream:
        start = stream.read(512).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page came instead of the file: a log-in, a consent or an error page"
    size = path.stat().st_size
    if sized and file.size and abs(size - file.size) > OFF * file.size:
        return f"it has {size:,} bytes, but about {file.size:,} were expected: cut off, or another file"
    if file.name.endswith(".zip") and not zipfile.is_zipfile(path):
        return "it is no zip file: cut off, or another file"
    return ""


def _take_away(path: Path, mirror: Mirror | None) -> None:
    if mirror:  # what was put there by hand stays; the Hub's cache has a link and what it points to
        for one in {path, path.resolve()}:
            one.unlink(missing_ok=True)


def _expected(file: File, record: dict) -> tuple[str, str]:
    """The digest a file must have, and who says so."""
    if file.digest:
        return file.digest, "the registry"
    known = record.get(file.name, {}).get("sha256")
    return (f"sha256:{known}", RECORD) if known else ("", "")


def _told_by_hub(path: Path) -> str:
    """SHA-256 of a large file by the Hub's own account, after which its cache names it; "" where it gave none."""
    return name if re.fullmatch("[0-9a-f]{64}", name := path.resolve().name) else ""


def _here(file: File, record: dict) -> Path | None:
    """Where a file lies that was checked before and was not touched since."""
    known = record.get(file.name)
    if known is None or not (path := Path(known["path"])).is_file():
        return None
    stat = path.stat()
    return path if (stat.st_size, stat.st_mtime_ns) == (known["size"], known["time"]) else None


def _record(folder: Path) -> dict:
    file = folder / RECORD
    return files.read_json(file) if file.is_file() else {}


def offline_mode() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the network."""
    return bool(constants.is_offline_mode())


def reason(error: Exception) -> str:
    """Why something could not be fetched, in one line; all of it where the message is this project's."""
    if isinstance(error, SbtError) and not isinstance(error, DataError):
        return str(error)
    if isinstance(error, hub_errors.LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__  # the status or the broken connection, which the Hub's client calls a lost connection
    if isinstance(error, hub_errors.GatedRepoError):
        return "gated: accept its terms on that page and set HF_TOKEN"
    if isinstance(error, hub_errors.RepositoryNotFoundError):
        return "no such repository, or a private one: correct the name, or set HF_TOKEN"
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return "no such revision: name a branch or a commit"
    if isinstance(error, hub_errors.LocalEntryNotFoundError | hub_errors.OfflineModeIsEnabled):
        why = "HF_HUB_OFFLINE is set" if offline_mode() else "the Hub cannot be reached"
        return f"{why} and the cache does not hold it: fetch it where there is a network"
    first = next(iter(str(error).strip().splitlines()), "no reason given")
    if isinstance(error, hub_errors.HfHubHTTPError) and error.response.status_code in (429, 503):
        wait = error.response.headers.get("Retry-After")
        return f"the Hub is busy ({error.response.status_code}): repeat" + (f" after {wait} seconds" if wait else "")
    if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore"):  # the Hub's library, by version
        return f"the connection failed ({type(error).__name__}: {first}): repeat to go on"
    return str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {first}"


def fetch_url(url: str, file: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetch `url` to `file`; what a broken fetch left in `FILE.part` is kept if the server still has the same file.

    DataError if the server refuses, sends a web page, or the file ends early; RunError where the disk is full.
    """
    part, about = file.with_name(f"{file.name}.part"), file.with_name(f"{file.name}.part.json")
    with files.writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    patiently(lambda: _piecewise(url, part, about, progress), lambda: part.stat().st_size if part.is_file() else None)
    with files.writing(file):
        part.replace(file)
        about.unlink(missing_ok=True)
    return file


def patiently(ask: Callable[[], T], came: Callable[[], int | None] = lambda: 0) -> T:
    """What `ask` returns; it is asked again where the connection breaks, or as a busy server's Retry-After says.

    `came` measures what has come so far: where a broken connection gave nothing, the server is left a moment.
    DataError where the server refuses, wants a longer wait than PATIENCE, or has been asked TRIES times.
    """
    for attempt in range(1, TRIES + 1):
        before = came()
        try:
            return ask()
        except urllib.error.HTTPError as error:
            pause = _wait(error, attempt)
            if pause is None or attempt == TRIES or pause > PATIENCE:
                later = f": repeat in {pause:.0f} seconds" if pause else ""
                raise DataError(f"the server answers {error.code} {error.reason}{later}") from None
            time.sleep(pause)
        except _BROKEN as error:
            if attempt == TRIES:
                raise DataError(f"{getattr(error, 'reason', error)}; repeat to go on") from None
            if before is not None and came() == before:
                time.sleep(min(attempt, 3))
    raise AssertionError("unreachable")


def _wait(error: urllib.error.HTTPError, attempt: int) -> float | None:
    """Seconds to wait before the server is asked again, None where its answer is final."""
    if error.code != 429 and error.code < 500:
        return None
    said = error.headers.get("Retry-After", "")
    if said.isdigit():
        return float(said)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return float(min(attempt, 3))


def _piecewise(url: str, part: Path, about: Path, progress: Callable[[int, int], None] | None) -> None:
    done = part.stat().st_size if part.is_file() and about.is_file() else 0
    known = files.read_json(about) if done else {}
    request = urllib.request.Request(url, headers=AGENT)
    if done:
        request.add_header("Range", f"bytes={done}-")
        if known.get("version"):
            request.add_header("If-Range", known["version"])  # a changed file comes whole, with status 200
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done and done == known.get("size"):
            return  # nothing is left to fetch
        raise
    with answer:
        if answer.headers.get_content_type() == "text/html" and not url.endswith((".html", ".htm")):
            raise DataError("the server sends a web page instead of the file: a log-in, a consent or an error page")
        if answer.status != 206:
            done = 0
        left = answer.headers.get("Content-Length")
        size = done + int(left) if left else 0
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        files.write_text(about, json.dumps({"version": version, "size": size}))
        with files.writing(part):
            out = open(part, "r+b" if done else "wb")  # noqa: SIM115 - closed below; what is read is no write error
        with out:
            out.seek(done)
            while data := answer.read(PIECE):
                with files.writing(part):
                    out.write(data)
                    out.flush()
                done += len(data)
                if progress:
                    progress(done, size)
    if size and done < size:
        raise ConnectionError(f"the connection ended at byte {done:,} of {size:,}")
