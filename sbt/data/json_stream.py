"""Rows of files too large to load: JSON lists, JSON lines and Parquet, one row at a time in constant memory.

A reader yields (row number, row). A faster library, ijson, writes "?" for half of a surrogate pair without a word, and
names neither row nor line of a fault.
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
_SPACE = re.compile(r"[ \t\n\r]*")
_CUT = 16  # a literal, number or escape that the end of a chunk cuts is shorter than this


class JsonLines:
    """Rows of a JSON-lines file; DataError by line and row."""

    def __init__(self, file: Path) -> None:
        self.file, self._read = Path(file), 0

    def share(self) -> float:
        """How much of the file is read, 0 to 1."""
        return self._read / max(self.file.stat().st_size, 1)

    def __iter__(self) -> Iterator[tuple[int, object]]:
        row, self._read = 0, 0
        with _opened(self.file) as stream:
            for number, line in enumerate(stream, start=1):
                self._read += len(line)
                if not line.strip():
                    continue
                try:
                    entry = json.loads(line.removeprefix(codecs.BOM_UTF8) if row == 0 else line)
                except (ValueError, RecursionError) as error:  # UnicodeDecodeError too, and numbers of 5,000 digits
                    where = f"{paths.shown(self.file)}:{number}: row {row}"
                    raise DataError(f"{where}: malformed JSON line ({error}). Mend or remove the line") from None
                yield row, entry
                row += 1


class JsonList:
    """Rows of a file that holds one JSON list.

    DataError with row, line, column and byte where the file is malformed, cut off or not UTF-8.
    """

    def __init__(self, file: Path) -> None:
        self.file = Path(file)
        self._start_over()

    def _start_over(self) -> None:
        self._base = 0  # the byte at which the text in hand begins
        self._text, self._at, self._end = "", 0, False
        self._row = 0
        self._bad: int | None = None  # byte that is not UTF-8

    def share(self) -> float:
        """How much of the file is read, 0 to 1; exact to a few megabytes."""
        return self._base / max(self.file.stat().st_size, 1)

    def __iter__(self) -> Iterator[tuple[int, object]]:
        self._start_over()
        decode = json.JSONDecoder().raw_decode
        with _opened(self.file) as stream:
            self._stream, self._decoder = stream, codecs.getincrementaldecoder("utf-8")()
            self._open_list()
            while self._next_row():
                entry, self._at = self._value(decode)
                self._row += 1
                yield self._row - 1, entry
                if self._at >= CHUNK:
                    self._base += len(self._text[: self._at].encode())
                    self._text, self._at = self._text[self._at :], 0
            if self._peek(self._at):
                raise self._error("text after the end of the list", self._at)

    def _open_list(self) -> None:
        self._more()
        at = self._skip(1 if self._text.startswith("\ufeff") else 0)
        if self._peek(at) != "[":
            begins = self._text[at : at + 20]
            remedy = ". If every line is a row, name the file .jsonl" if begins.startswith("{") else ""
            words = f"expected a JSON list of rows, it begins with {begins!r}{remedy}"
            raise DataError(f"{paths.shown(self.file)}: {words}")
        self._at = at + 1

    def _next_row(self) -> bool:
        """Move to the next row. At the end of the list: move behind it, and return False."""
        at = self._skip(self._at)
        if self._row and self._peek(at) == ",":
            at = self._skip(at + 1)
            if self._peek(at) == "]":
                raise self._error("a comma before the end of the list", at)
        elif self._peek(at) == "]":
            self._at = self._skip(at + 1)
            return False
        elif self._row and self._peek(at):
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
            except (ValueError, RecursionError) as error:  # a number of 5,000 digits, or lists thousands deep
                raise self._error(str(error), self._at) from None
            closed = self._text[end - 1] in '}]"'  # a number may go on in the next chunk
            if closed or end + _CUT < len(self._text) or not self._more():
                return entry, end

    def _skip(self, at: int) -> int:
        """The first place from `at` on that holds no blank."""
        while (at := _SPACE.match(self._text, at).end()) == len(self._text) and self._more():
            pass
        return at

    def _peek(self, at: int) -> str:
        """The character at a place, empty behind the file's end."""
        return self._text[at : at + 1] if at < len(self._text) or self._more() else ""

    def _more(self) -> bool:
        """Read on; False at the file's end."""
        while not self._end:
            if self._bad is not None:
                where = f"{paths.shown(self.file)}: row {self._row}, byte {self._bad}"
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
        byte = self._base + len(self._text[:at].encode())
        line, column = _line_of(self.file, byte)
        where = f"{paths.shown(self.file)}:{line}:{column}: row {self._row} (byte {byte})"
        return DataError(f"{where}: malformed JSON ({problem}). Mend the row, or download the file again")


class ParquetRows:
    """Rows of a Parquet file. DataError if it is no Parquet."""

    def __init__(self, file: Path) -> None:
        self.file, self._share = Path(file), 0.0

    def share(self) -> float:
        """How much of the file is read, 0 to 1."""
        return self._share

    def __iter__(self) -> Iterator[tuple[int, object]]:
        import pyarrow as pa
        from pyarrow import parquet

        row = 0
        try:
            with parquet.ParquetFile(self.file) as opened:
                for batch in opened.iter_batches(batch_size=1000):
                    for entry in batch.to_pylist():
                        yield row, entry
                        row += 1
                    self._share = row / opened.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            where = f"{paths.shown(self.file)}: row {row}"
            raise DataError(f"{where}: cannot be read as Parquet ({error}). Download the file again") from None


READERS = {".json": JsonList, ".jsonl": JsonLines, ".parquet": ParquetRows}


def reader(file: Path) -> JsonList | JsonLines | ParquetRows:
    """The reader for a file by its extension; DataError where there is none."""
    kind = READERS.get(Path(file).suffix.lower())
    if kind is None:
        raise DataError(f"{paths.shown(Path(file))}: rows are read from {', '.join(READERS)} files only")
    return kind(Path(file))


def _opened(file: Path) -> BinaryIO:
    try:
        return open(file, "rb")
    except OSError as error:
        raise DataError(f"{paths.shown(file)} cannot be read ({error.strerror})") from None


def _line_of(file: Path, byte: int) -> tuple[int, int]:
    """Line and column, both from 1, of a byte; the file is read again only when there is something to report."""
    line, column = 1, 1
    with _opened(file) as stream:
        while data := stream.read(min(CHUNK, byte)):
            byte -= len(data)
            line += data.count(b"\n")
            column = len(data) - data.rfind(b"\n") if b"\n" in data else column + len(data)
    return line, column
