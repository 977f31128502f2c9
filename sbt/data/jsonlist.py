"""Rows of files too large to load: JSON lists, JSON lines and Parquet, one row at a time in constant memory.

A reader yields (row number, row); its `mark` says where the next row begins, and a reader opened there goes on.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sbt.utils import paths
from sbt.utils.errors import DataError

CHUNK = 2**22  # bytes read at a time
LONGEST = 2**24  # characters of one row; a string that is still open after so many was never closed
_SPACE = " \t\n\r"
_GAP = re.compile(r"[ \t\n\r]*,[ \t\n\r]*(?=\{)")  # what nearly always stands between two rows
_CUT = 16  # a literal, number or escape that the end of a chunk cuts is shorter than this


class JsonLines:
    """Rows of a JSON-lines file from the byte `start` on, where row number `row` is; DataError by line."""

    def __init__(self, file: Path, start: int = 0, row: int = 0) -> None:
        self.file, self.mark, self.row = Path(file), start, row

    def share(self) -> float:
        """How much of the file is read, 0 to 1."""
        return self.mark / max(self.file.stat().st_size, 1)

    def __iter__(self) -> Iterator[tuple[int, object]]:
        with _opened(self.file) as stream:
            stream.seek(self.mark)
            for line in stream:
                try:
                    entry = json.loads(line) if line.strip() else None
                except ValueError as error:  # JSONDecodeError, and UnicodeDecodeError where it is no UTF-8
                    where = f"{paths.shown(self.file)}:{_lines(self.file, self.mark)[0]}: row {self.row}"
                    raise DataError(f"{where}: malformed JSON line ({error}). Mend or remove the line") from None
                self.mark += len(line)
                if line.strip():
                    self.row += 1
                    yield self.row - 1, entry


class JsonList:
    """Rows of a file that holds one JSON list, from the byte `start` on (0, or another reader's `mark`).

    DataError with row, line, column and byte where the file is malformed, cut off or not UTF-8.
    """

    def __init__(self, file: Path, start: int = 0, row: int = 0) -> None:
        self.file, self.row = Path(file), row
        self._start = self._base = start  # the byte at which the text in hand begins
        self._text, self._at, self._end = "", 0, False
        self._bad: int | None = None  # byte that is not UTF-8

    @property
    def mark(self) -> int:
        """Byte behind the last row that was yielded."""
        return self._base + len(self._text[: self._at].encode())

    def share(self) -> float:
        """How much of the file is read, 0 to 1; exact to a few megabytes."""
        return self._base / max(self.file.stat().st_size, 1)

    def __iter__(self) -> Iterator[tuple[int, object]]:
        decode = json.JSONDecoder().raw_decode
        with _opened(self.file) as stream:
            stream.seek(self._start)
            self._stream, self._decoder = stream, codecs.getincrementaldecoder("utf-8")()
            if self._start == 0:
                self._open_list()
            while self._next_row():
                entry, self._at = self._value(decode)
                self.row += 1
                yield self.row - 1, entry
                if self._at >= CHUNK:
                    self._base, self._text, self._at = self.mark, self._text[self._at :], 0
            if self._peek(self._at):
                raise self._error("text after the end of the list", self._at)

    def _open_list(self) -> None:
        self._more()
        if self._text.startswith("\ufeff"):
            self._at = 1
        at = self._skip(self._at)
        if self._peek(at) != "[":
            found = self._text[at : at + 20]
            raise DataError(f"{paths.shown(self.file)}: expected a JSON list of rows, it begins with {found!r}")
        self._at = at + 1

    def _next_row(self) -> bool:
        """Move to the next row; False at the list's end, behind which the position then is."""
        if self.row and (gap := _GAP.match(self._text, self._at)):
            self._at = gap.end()
            return True
        at = self._skip(self._at)
        if self.row and self._peek(at) == ",":
            at = self._skip(at + 1)
            if self._peek(at) == "]":
                raise self._error("a comma before the end of the list", at)
        elif self._peek(at) == "]":
            self._at = self._skip(at + 1)
            return False
        elif self.row and self._peek(at):
            raise self._error("expected a comma or the end of the list after the row before", at)
        if not self._peek(at):
            raise self._error("the file ends inside of its list: it is cut off", at)
        self._at = at
        return True

    def _value(self, decode: json.JSONDecoder.raw_decode) -> tuple[object, int]:
        while True:
            try:
                entry, end = decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # What a chunk cut is retried with more text; what is wrong before its end stays wrong.
                cut = error.pos >= len(self._text) - _CUT or error.msg.startswith("Unterminated string")
                if not cut or len(self._text) - self._at > LONGEST or not self._more():
                    raise self._error(error.msg, error.pos) from None
                continue
            closed = self._text[end - 1] in '}]"'  # a number may go on in the next chunk
            if closed or end + _CUT < len(self._text) or not self._more():
                return entry, end

    def _skip(self, at: int) -> int:
        while (character := self._peek(at)) and character in _SPACE:
            at += 1
        return at

    def _peek(self, at: int) -> str:
        """The character at a place, empty behind the file's end."""
        return self._text[at : at + 1] if at < len(self._text) or self._more() else ""

    def _more(self) -> bool:
        """Read on; False at the file's end."""
        while not self._end:
            if self._bad is not None:
                where = f"{paths.shown(self.file)}: row {self.row}, byte {self._bad}"
                raise DataError(f"{where}: not UTF-8: the file is damaged. Download it again")
            data = self._stream.read(CHUNK)
            self._end = not data
            try:
                text = self._decoder.decode(data, final=self._end)
            except UnicodeDecodeError as error:  # raised when the row with that byte is reached
                self._bad, self._end = self._stream.tell() - len(error.object) + error.start, False
                text = error.object[: error.start].decode()
            if text:
                self._text += text
                return True
        return False

    def _error(self, problem: str, at: int) -> DataError:
        line, column = _lines(self.file, byte := self._base + len(self._text[:at].encode()))
        where = f"{paths.shown(self.file)}:{line}:{column}: row {self.row} (byte {byte})"
        return DataError(f"{where}: malformed JSON ({problem}). Mend the row, or download the file again")


class ParquetRows:
    """Rows of a Parquet file from the row `start` on; `mark` is a row number here. DataError if it is no Parquet."""

    def __init__(self, file: Path, start: int = 0, row: int = 0) -> None:
        self.file, self.mark, self.row = Path(file), start, row
        self._total = 1

    def share(self) -> float:
        """How much of the file is read, 0 to 1."""
        return self.mark / max(self._total, 1)

    def __iter__(self) -> Iterator[tuple[int, object]]:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self.file) as opened:
                passed, self._total = 0, opened.metadata.num_rows
                for batch in opened.iter_batches(batch_size=1000):
                    new = max(0, self.mark - passed)
                    passed += len(batch)
                    for entry in batch.slice(new).to_pylist() if new < len(batch) else ():
                        self.mark += 1
                        self.row += 1
                        yield self.row - 1, entry
        except (pa.ArrowException, OSError) as error:
            where = f"{paths.shown(self.file)}: row {self.row}"
            raise DataError(f"{where}: cannot be read as Parquet ({error}). Download the file again") from None


READERS = {".json": JsonList, ".jsonl": JsonLines, ".parquet": ParquetRows}


def reader(file: Path, start: int = 0, row: int = 0) -> JsonList | JsonLines | ParquetRows:
    """The reader for a file by its extension, at a mark; DataError where there is none."""
    kind = READERS.get(Path(file).suffix.lower())
    if kind is None:
        raise DataError(f"{paths.shown(Path(file))}: rows are read from {', '.join(READERS)} files only")
    return kind(Path(file), start, row)


def _opened(file: Path) -> BinaryIO:
    try:
        return open(file, "rb")
    except OSError as error:
        raise DataError(f"{paths.shown(file)} cannot be read ({error.strerror})") from None


def _lines(file: Path, byte: int) -> tuple[int, int]:
    """Line and column, both from 1, of a byte; read only when there is something to report."""
    line, column = 1, 1
    with _opened(file) as stream:
        while byte > 0 and (data := stream.read(min(CHUNK, byte))):
            byte -= len(data)
            line += data.count(b"\n")
            last = data.rfind(b"\n")
            column = len(data) - last if last >= 0 else column + len(data)
    return line, column
