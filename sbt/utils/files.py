"""Reading and writing the project's files: atomic, UTF-8, errors that name the file, and fingerprints of contents."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from sbt.utils import paths
from sbt.utils.errors import DataError, RunError

FULL = (errno.ENOSPC, errno.EDQUOT)
HASHED_FILES = 1000  # in a folder of more, pictures are told apart by their ends
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
FOREIGN = {  # files of other kinds, by their first bytes in small letters
    b"\x1f\x8b": "packed by gzip. Unpack it first", b"pk\x03\x04": "a zip. Unpack it first, and name a file of it",
    b"par1": "a Parquet table, not text. Save it as JSON lines",
    b"version https://git-lfs": "a pointer that Git LFS left, not the data. Fetch it with `git lfs pull`",
    b"<!doctype html": "a web page, not the file: a log-in or an error page. Fetch the file anew",
    b"<html": "a web page, not the file: a log-in or an error page. Fetch the file anew",
}  # fmt: skip
DEEP = "JSON nested too deeply to be read: no file of this project's kinds is"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError met while writing `path` into one RunError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise RunError(f"{paths.shown(path)}: the disk is full. Free some space and repeat the command") from error
        raise RunError(
            f"{paths.shown(path)} cannot be written ({error.strerror}). "
            "Make that folder writable, or point SBT_OUTPUTS to one that is"
        ) from error


def lock(path: Path, seconds: float, busy: str) -> AbstractContextManager:
    """Hold an exclusive lock until the returned context is left or the process ends, however it ends.

    RunError with the text `busy` where another process holds it for longer than `seconds`.
    """
    from filelock import FileLock, Timeout

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock(path).acquire(timeout=seconds, poll_interval=0.1)
        except Timeout:
            raise RunError(busy) from None


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 file whole or not at all. DataError where the text holds half a character (a lone surrogate)."""
    try:
        return write_bytes(path, text.encode("utf-8"))
    except UnicodeEncodeError as error:
        half = text[error.start : error.end].encode("unicode_escape").decode()
        raise DataError(f"{paths.shown(path)}: the text holds half a character ({half}), which no file can") from None


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all: a temporary file in the same folder, then a rename."""
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(name, 0o644)  # mkstemp's 0600 would hide results from the group of a shared machine
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    return path


def write_json(path: Path, value: object) -> Path:
    """Write one JSON value, atomically. NaN is refused: it is no JSON."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict]) -> Path:
    """Write one JSON object a line, atomically."""
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def write_csv(path: Path, rows: Iterable[dict], header: bool = True) -> Path:
    """Write a table, atomically; the columns are the keys in the order they are first met, named in a first line."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return write_text(path, text.getvalue())


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, without the byte order mark that some editors put first.

    DataError where it is missing, not UTF-8, or a file of another kind by its first bytes.
    """
    try:
        content = Path(path).read_bytes()
        for start, kind in FOREIGN.items():
            if content[: len(start)].lower() == start:
                raise DataError(f"{paths.shown(path)} is {kind}")
        return content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise DataError(f"{paths.shown(path)} does not exist") from None
    except UnicodeDecodeError as error:
        if Path(path).name.startswith("._"):
            told = f"is what macOS keeps beside a file, not its data. Name {Path(path).name[2:]!r}"
            raise DataError(f"{paths.shown(path)} {told}") from None
        utf16 = error.start == 0 and error.object[:2] in (b"\xff\xfe", b"\xfe\xff")
        found = "the file is UTF-16" if utf16 else f"byte {error.start} is not: Latin-1, or a damaged file"
        raise DataError(f"{paths.shown(path)}: expected UTF-8, {found}. Save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{paths.shown(path)} cannot be read ({error.strerror})") from error


def read_json(path: Path, keys_once: bool = False) -> object:
    """Value of a JSON file; DataError with line and column where it is malformed, or where it is nested too deeply.

    Of a key that stands twice in an object JSON keeps the last, without a word; with `keys_once` it is a DataError.
    """
    name = paths.shown(path)

    def once(pairs: list[tuple[str, object]]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise DataError(f"{name}: the key {key!r} stands twice in one object. Keep one")
        return found

    try:
        return json.loads(read_text(path), object_pairs_hook=once if keys_once else None)
    except json.JSONDecodeError as error:
        where = f"{name}:{error.lineno}:{error.colno}"
        raise DataError(f"{where}: malformed JSON ({error.msg}): the file is truncated or damaged") from None
    except (RecursionError, ValueError) as error:
        raise DataError(f"{name}: {_unreadable(error)}") from None


def read_jsonl(path: Path) -> list[dict]:
    """Objects of a JSON-lines file; DataError with the line where one is malformed."""
    return [row for _, row in read_lines(path)]


def read_lines(path: Path) -> list[tuple[int, dict]]:
    """(line number, object) of a JSON-lines file, in which blank lines are skipped; DataErrors as in `read_jsonl`."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{paths.shown(path)}:{number}: malformed JSON line ({error.msg})") from None
        except (RecursionError, ValueError) as error:
            raise DataError(f"{paths.shown(path)}:{number}: {_unreadable(error)}") from None
        if not isinstance(row, dict):
            found = line.strip()[:40]
            raise DataError(f"{paths.shown(path)}:{number}: expected a JSON object, found {found!r}")
        rows.append((number, row))
    return rows


def _unreadable(error: Exception) -> str:
    return DEEP if isinstance(error, RecursionError) else "a number is too long: no file of this project has such"


def sha256(data: str | bytes) -> str:
    """Hexadecimal SHA-256 of text or bytes."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def file_hash(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's contents."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> dict:
    """Identity of a file or folder: `size` (bytes), `files`, `stamp` (names, sizes, times), `sha256` of contents."""
    files = _members(path)
    sizes = [(name, file.stat().st_size) for name, file in files]
    many = len(files) > HASHED_FILES
    contents = [(name, size, _content(file, many)) for (name, file), (_, size) in zip(files, sizes, strict=True)]
    total = sum(size for _, size in sizes)
    return {"size": total, "files": len(files), "stamp": _stamp(files), "sha256": sha256(json.dumps(contents))}


def _content(file: Path, many: bool) -> str:
    """Hash of a file; of a picture among many, of its last bytes, since a hundred thousand take minutes to read."""
    if not many or file.suffix.lower() not in _PICTURES:
        return file_hash(file)
    with open(file, "rb") as opened:
        opened.seek(max(0, file.stat().st_size - 4096))
        return sha256(opened.read())


def unchanged(path: Path, recorded: dict) -> bool:
    """Whether `path` still is what `recorded` says: by size and time where they agree, else by contents."""
    if not path.exists() or not isinstance(recorded, dict):
        return False
    files = _members(path)
    return _stamp(files) == recorded.get("stamp") or fingerprint(path)["sha256"] == recorded.get("sha256")


def _members(path: Path) -> list[tuple[str, Path]]:
    if path.is_file():
        return [("", path)]
    return sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())


def _stamp(files: list[tuple[str, Path]]) -> str:
    return sha256(json.dumps([(name, file.stat().st_size, file.stat().st_mtime_ns) for name, file in files]))
