"""Single members of a zip on the web, fetched by ranges of bytes: the pictures of a sample, not the archive.

They go to a file of the zip's own layout and size: its directory and the members that were fetched, each at its place.
What was not fetched is a hole, which takes no disk. So they are read as those of the whole zip, CRC and all.
"""

import os
import struct
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import huggingface_hub

from sbt.data import download
from sbt.data.image_zip import ImageZip, open_zip
from sbt.data.registry import File, Mirror
from sbt.utils import files, hub, paths
from sbt.utils.errors import DataError

FOLDER = "sampled"  # below a source's downloads
AT_ONCE = 16
TAIL = 2**16 + 100  # bytes in which a zip's end record must stand
_EXTRA = 512  # bytes that a member's local header may be longer than the directory says
_END, _END64 = b"PK\x05\x06", b"PK\x06\x06"


class NoRanges(DataError):
    """The server gives whole files only."""


def outline(file: File, folder: Path) -> Path:
    """A zip's outline in `folder`/FOLDER: its size and directory, no member yet; one that is there already is kept.

    NoRanges where no mirror serves ranges; DataError where none can be reached, or what it has is no zip.
    """
    path, failures = folder / FOLDER / file.name, []
    if path.is_file():
        return path
    for mirror in file.mirrors:
        try:
            return _outline(path, mirror)
        except NoRanges:
            failures.append(f"  {mirror.shown()}: serves no ranges")
        except Exception as error:  # of many libraries
            failures.append(f"  {mirror.shown()}: {download.reason(error)}")
    kind = NoRanges if all(line.endswith("no ranges") for line in failures) else DataError
    raise kind("\n".join([f"members of {file.name} cannot be had:", *failures]))


def _outline(path: Path, mirror: Mirror) -> Path:
    if download.offline_mode():
        raise DataError("not asked for: HF_HUB_OFFLINE is set")
    url = _url(mirror)
    tail, size = _range(url, f"-{TAIL}")
    begin = _directory(tail, size)
    directory = tail[begin - size :] if size - begin <= len(tail) else _range(url, f"{begin}-{size - 1}")[0]
    part = path.with_name(f"{path.name}.part")
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as out:
            out.truncate(size)
            out.seek(begin)
            out.write(directory)
    ImageZip(part)  # raises where it is none
    part.replace(path)
    return path


def _directory(tail: bytes, size: int) -> int:
    """The byte at which a zip's directory begins (APPNOTE.TXT 4.3.14 and 4.3.16)."""
    at = tail.rfind(_END)
    if at < 0:
        raise DataError("no zip file: it has no directory at its end")
    length, begin = struct.unpack_from("<2I", tail, at + 12)
    if 0xFFFFFFFF in (length, begin) and (large := tail.rfind(_END64, 0, at)) >= 0:
        length, begin = struct.unpack_from("<2Q", tail, large + 40)
    if begin + length > size:
        raise DataError("no whole zip file: its directory is not where it says")
    return begin


def fetch(
    path: Path, file: File, members: Iterable[str], progress: Callable[[str, int, int], None] | None = None
) -> None:
    """Fetch members into an outline, many at a time, but for those that are there; each is checked by its CRC.

    `progress(file, members done, members)`. DataError names the first member that cannot be had, and why.
    """
    opened, stamp = open_zip(str(path)), path.stat().st_mtime_ns
    missing = [member for member in dict.fromkeys(members) if not _whole(opened, member)]
    if not missing:
        return
    if download.offline_mode():
        where = f"{len(missing)} members of {paths.shown(path)} are not here, and HF_HUB_OFFLINE is set"
        raise DataError(f"{where}: run `sbt fetch` of the study with these parameters where there is a network")
    handle, source = os.open(path, os.O_RDWR), _Place(file.mirrors)
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = [pool.submit(_member, source, opened, handle, member) for member in missing]
            try:
                for done, job in enumerate(as_completed(jobs), start=1):
                    job.result()
                    if progress:
                        progress(file.name, done, len(missing))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        os.close(handle)
        os.utime(path, ns=(stamp, stamp))  # the directory is what it was: rows prepared with it are still good


class _Place:
    """Where ranges are read: the first mirror; the next one after a failure. A signed address is asked for anew."""

    def __init__(self, mirrors: tuple[Mirror, ...]) -> None:
        self.mirrors = mirrors
        self._urls: dict[Mirror, str] = {}

    def read(self, words: str) -> bytes:
        for last, mirror in enumerate(self.mirrors, start=1 - len(self.mirrors)):
            try:
                url = self._urls.setdefault(mirror, "") or _url(mirror)
                self._urls[mirror] = url
                return _range(url, words)[0]
            except Exception:
                self._urls.pop(mirror, None)
                if last == 0:
                    raise
        raise DataError("no place is known")


def _member(place: _Place, opened: ImageZip, handle: int, member: str) -> None:
    begin, stored = opened.place(member)
    words = f"{begin}-{begin + stored + len(member.encode()) + _EXTRA}"
    for last in (False, True):
        data = place.read(words)
        with files.writing(opened.file):
            os.pwrite(handle, data, begin)
        try:
            opened.read(member)
            return
        except DataError:
            if last:
                raise


def _whole(opened: ImageZip, member: str) -> bool:
    try:
        return bool(opened.read(member)) or True
    except DataError:
        return False


def _url(mirror: Mirror) -> str:
    """The address of the bytes: of a Hub file that of its store, asked for with this machine's token."""
    if mirror.url:
        return mirror.url
    revision = mirror.revision or hub.commit(hub.DATASETS + mirror.repo)
    url = huggingface_hub.hf_hub_url(mirror.repo, mirror.path, repo_type="dataset", revision=revision)
    return huggingface_hub.get_hf_file_metadata(url).location


def _range(url: str, words: str) -> tuple[bytes, int]:
    """The bytes of a range, and the size of the file; NoRanges where the whole file comes instead."""
    return download.patiently(lambda: _asked(url, words))


def _asked(url: str, words: str) -> tuple[bytes, int]:
    request = urllib.request.Request(url, headers=download.AGENT | {"Range": f"bytes={words}"})
    with urllib.request.urlopen(request, timeout=download.TIMEOUT) as answer:
        if answer.status != 206:
            raise NoRanges("it serves whole files only")
        data, size = answer.read(), int(answer.headers["Content-Range"].rpartition("/")[2])
    if len(data) < int(answer.headers.get("Content-Length") or len(data)):
        raise ConnectionError("the connection ended early")
    return data, size
