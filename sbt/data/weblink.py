"""A file by a plain web address: in pieces, going on where an interrupted fetch stopped, named only when whole."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from sbt.utils import files
from sbt.utils.errors import DataError

PIECE = 2**20
TRIES = 5  # connections that break are taken up again; each must have brought something
TIMEOUT = 30.0  # seconds without a byte


def fetch(url: str, file: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetch `url` to `file`; what a broken fetch left in `FILE.part` is kept if the server still has the same file.

    DataError if the server refuses, or the file ends before its announced length; RunError where the disk is full.
    """
    part, about = file.with_name(f"{file.name}.part"), file.with_name(f"{file.name}.part.json")
    with files.writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, TRIES + 1):
        before = part.stat().st_size if part.is_file() else 0
        try:
            _piecewise(url, part, about, progress)
            break
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise DataError(f"the server answers {error.code} {error.reason}") from None
            if attempt == TRIES:
                raise DataError(f"{getattr(error, 'reason', error)}; repeat to go on") from None
            if part.is_file() and part.stat().st_size == before:
                time.sleep(min(attempt, 3))  # nothing came: leave the server a moment
    with files.writing(file):
        part.replace(file)
        about.unlink(missing_ok=True)
    return file


def _piecewise(url: str, part: Path, about: Path, progress: Callable[[int, int], None] | None) -> None:
    done = part.stat().st_size if part.is_file() and about.is_file() else 0
    known = files.read_json(about) if done else {}
    request = urllib.request.Request(url)
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
