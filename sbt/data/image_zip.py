"""Image files inside a zip, read without unpacking it, by threads and forked processes at once.

A reference to one is `/path/images.zip::member`; `open_image` opens it, or the file that a plain path names.
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from sbt.data.images import FORMATS, MAX_PIXELS, MIN_SIDE
from sbt.utils import paths
from sbt.utils.errors import DataError

MARK = ".zip::"  # ends the path of the zip in a reference
HEAD, TAIL = 2**12, 2**10  # bytes at both ends of a JPEG that are looked at
LARGEST = 2**29  # bytes of a member: more than any image, or question file, that is used here
_LOCAL = struct.Struct("<4s5H3I2H")  # local file header, APPNOTE.TXT 4.3.7
_ENTRY = struct.Struct("<3Q2HI")  # of a member: offset, packed size, size, method, flags, CRC; 36 bytes, not objects
# Start of frame of every JPEG coding: ITU T.81 table B.1; C4, C8 and CC mean something else.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageZip:
    """Members of a zip by name; what is read is checked by its CRC. DataError where the file is no whole zip.

    zipfile reads the directory only: its files share one position, which forked processes would move for each other,
    and its entries take half a gigabyte for a million members. `refused` are members that are never read: their name
    leaves the folder (`..`, absolute, a drive, a backslash), or stands twice with different contents.
    """

    def __init__(self, file: Path) -> None:
        self.file, self._members, refused = Path(file), {}, set()
        try:
            with zipfile.ZipFile(self.file) as opened:
                for member in opened.infolist():
                    if member.is_dir():
                        continue
                    sizes = member.header_offset, member.compress_size, member.file_size
                    entry = _ENTRY.pack(*sizes, member.compress_type, member.flag_bits & 0xFFFF, member.CRC)
                    before = self._members.setdefault(member.filename, entry)
                    if not safe(member.filename) or _content(before) != _content(entry):
                        refused.add(member.filename)
        except FileNotFoundError:
            raise DataError(f"{paths.shown(self.file)} does not exist. Download it first") from None
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            what = f"{paths.shown(self.file)}: no whole zip file ({error})"
            raise DataError(f"{what}: cut off or damaged. Download it again") from None
        self.refused = sorted(refused)
        for name in refused:
            del self._members[name]
        # By what stands last in the path: data files name images with fewer or more folders than the zip has.
        self._nested: dict[str, str | list[str]] = {}
        for name in self._members:
            if (last := name.rpartition("/")[2]) != name:
                before = self._nested.setdefault(last, name)
                if before is not name:
                    self._nested[last] = [*([before] if isinstance(before, str) else before), name]
        self._handle = os.open(self.file, os.O_RDONLY)  # shared by forks: every read below says where it reads

    def __len__(self) -> int:
        return len(self._members)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)

    def sizes(self) -> dict[str, int]:
        """Bytes of every member, unpacked, as the directory declares them."""
        return {name: _ENTRY.unpack(entry)[2] for name, entry in self._members.items()}

    def find(self, name: str) -> str | None:
        """The member a data file's image name means, None if there is none.

        The name itself, or the one member of which it is the end (`1.jpg` is `train2017/1.jpg`), or that is the end of
        it (`coco/train2017/1.jpg`). DataError for a refused name, or where several members fit.
        """
        if name in self._members:
            return name
        if name in self.refused or not safe(name):
            raise DataError(f"image {name!r} {self._reason(name)}")
        last = name.rpartition("/")[2]
        near = self._nested.get(last, [])
        near = [*([near] if isinstance(near, str) else near), *([last] if last in self._members else [])]
        fits = [one for one in near if one.endswith(f"/{name}") or name.endswith(f"/{one}")]
        if len(fits) > 1:
            raise DataError(f"image {name!r} fits {len(fits)} members of {self.file.name}: {', '.join(fits[:3])}")
        return fits[0] if fits else None

    def read(self, member: str) -> bytes:
        """The bytes of a member; DataError if it is missing, encrypted, too large, cut off or its CRC is wrong.

        No more is unpacked than the directory declares, so a small member cannot fill the memory.
        """
        offset, stored, size, method, _, crc = self._entry(member)
        data = self._at(offset + self._skip(member, offset), stored)
        try:
            if method == zipfile.ZIP_DEFLATED:
                unpacker = zlib.decompressobj(-15)
                data = unpacker.decompress(data, size + 1)
        except zlib.error as error:
            raise self._fail(member, f"does not unpack ({error})") from None
        if len(data) > size:
            raise self._fail(member, f"unpacks to more than the {size:,} bytes it declares: the zip is damaged")
        if len(data) != size or zlib.crc32(data) != crc:
            raise self._fail(member, "its checksum is wrong: the zip is damaged")
        return data

    def place(self, member: str) -> tuple[int, int]:
        """The byte at which a member's header begins, and its packed size. DataErrors as in `read`."""
        return self._entry(member)[:2]

    def look(self, member: str) -> str:
        """What is wrong with a member as an image, empty if nothing: see `fault`."""
        try:
            offset, _, size, method, _, _ = self._entry(member)
            if method != zipfile.ZIP_STORED:
                data = self.read(member)
                return fault(lambda start, length: data[start : start + length], size)
            begin = offset + self._skip(member, offset)
            return fault(lambda start, length: self._at(begin + start, min(length, size - start)), size)
        except DataError as error:
            return str(error)

    def _entry(self, member: str) -> tuple[int, ...]:
        if member not in self._members:
            refused = member in self.refused or not safe(member)
            raise self._fail(member, self._reason(member) if refused else "no such member")
        entry = _ENTRY.unpack(self._members[member])
        _, stored, size, method, flags, _ = entry
        if flags & 1:
            raise self._fail(member, "is encrypted")
        if max(stored, size) > LARGEST:
            raise self._fail(member, f"takes {size:,} bytes; up to {LARGEST:,} are read")
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._fail(member, f"packed by a method (number {method}) that is not read. Pack it by deflate")
        return entry

    def _reason(self, name: str) -> str:
        return "stands twice with different contents: refused" if safe(name) else "leaves its folder: refused"

    def _skip(self, member: str, offset: int) -> int:
        """Length of a member's local header, whose extra field may differ from the directory's."""
        header = self._at(offset, _LOCAL.size)
        if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
            raise self._fail(member, "not where the directory says: the zip is damaged")
        *_, name, extra = _LOCAL.unpack(header)
        return _LOCAL.size + name + extra

    def _at(self, offset: int, length: int) -> bytes:
        return os.pread(self._handle, length, offset)

    def _fail(self, member: str, problem: str) -> DataError:
        return DataError(f"{paths.shown(self.file)}, member {member!r}: {problem}")


class ImageFinder:
    """Finds the images of a data file by name in folders and zips, searched in order."""

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = [Path(place).absolute() for place in places]
        self.zips = {place: open_zip(str(place)) for place in self.places if place.suffix.lower() == ".zip"}
        self._outputs = f"{paths.outputs()}/"
        self.path = lru_cache(maxsize=2**16)(self._path)

    def _path(self, name: str) -> str | None:
        """Path or zip reference of an image, None if it is nowhere; DataError for an unsafe or ambiguous name."""
        if not safe(name):
            raise DataError(f"image {name!r} leaves its folder: refused. Name it relative to the folder of images")
        for place in self.places:
            if opened := self.zips.get(place):
                if member := opened.find(name):
                    return reference(place, member)
            elif (place / name).is_file():
                return str(place / name)
        return None

    def kept(self, path: str) -> str:
        """A path as prepared rows keep it: relative to the folder of outputs where it lies inside, which may move."""
        return path.removeprefix(self._outputs)

    def shown(self) -> str:
        """The places for a message."""
        return ", ".join(paths.shown(place) for place in self.places)


def safe(name: str) -> bool:
    """Whether a name stays inside of the folder it is read from, on every system."""
    if ".." in name and ".." in name.replace("\\", "/").split("/"):
        return False
    return bool(name) and not name.startswith("/") and "\\" not in name and "\0" not in name and name[1:2] != ":"


@lru_cache(maxsize=16)
def open_zip(file: str) -> ImageZip:
    """The zip, its directory read once in a process."""
    return ImageZip(Path(file))


def reference(file: Path | str, member: str) -> str:
    """How a row names an image inside a zip: `FILE::MEMBER`."""
    return f"{file}::{member}"


def split(ref: str) -> tuple[str, str] | None:
    """Zip and member of a reference, None for a plain path."""
    at = ref.lower().find(MARK)
    return (ref[: at + len(MARK) - 2], ref[at + len(MARK) :]) if at >= 0 else None


def full(ref: str) -> str:
    """The reference with the whole path: prepared rows name what lies in the folder of outputs relative to it."""
    return ref if os.path.isabs(ref) else str(paths.outputs() / ref)


def open_image(ref: str) -> Image.Image:
    """The image that a row names, as `PIL.Image.open` opens it: not decoded or converted yet.

    DataError that names the file, or zip and member, where it is missing or no image.
    """
    ref = full(ref)
    inside = split(ref)
    try:
        return Image.open(io.BytesIO(open_zip(inside[0]).read(inside[1])) if inside else ref, formats=FORMATS)
    except (OSError, Image.DecompressionBombError) as error:
        shown = ref if inside else paths.shown(Path(ref))
        raise DataError(f"image {shown} cannot be opened ({error}). Restore the file or drop the row") from None


def look(ref: str) -> str:
    """What is wrong with the image of a reference or path, empty if nothing: see `fault`."""
    ref = full(ref)
    if inside := split(ref):
        return open_zip(inside[0]).look(inside[1])
    try:
        with open(ref, "rb") as file:
            handle = file.fileno()
            return fault(lambda start, length: os.pread(handle, length, start), os.fstat(handle).st_size)
    except OSError as error:
        return f"image {paths.shown(Path(ref))} cannot be read ({error.strerror})"


def fault(read: Callable[[int, int], bytes], size: int) -> str:
    """What is wrong with an image file of `size` bytes, empty if nothing; `read(offset, length)` gives its bytes.

    No known format, sides below MIN_SIDE, a square over the longer side above MAX_PIXELS, or damage. Of a JPEG, header
    and end are looked at: its decoder passes over damage in the middle anyway. Anything else is decoded whole, and a
    PNG's checksums are compared.
    """
    head = read(0, HEAD)
    sides = _jpeg_sides(head)
    try:
        if sides is None or b"\xff\xd9" not in read(max(0, size - TAIL), TAIL):
            data = io.BytesIO(read(0, size))
            with Image.open(data, formats=FORMATS) as opened:
                sides = opened.size
                if max(sides) ** 2 <= MAX_PIXELS:
                    opened.load()
                    Image.open(data, formats=FORMATS).verify()  # leaves the object unusable, so it needs its own
    except UnidentifiedImageError:
        return f"is no {', '.join(FORMATS)} file: it begins with {head[:12]!r}" if head else "the file is empty"
    except Exception as error:  # Pillow raises many types, SyntaxError and struct.error among them
        return f"does not decode ({error}): cut off or damaged"
    if min(sides) < MIN_SIDE or max(sides) ** 2 > MAX_PIXELS:
        return f"{sides[0]} x {sides[1]} pixels: sides from {MIN_SIDE} to {int(MAX_PIXELS**0.5):,} are used"
    return ""


def _jpeg_sides(head: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG by its first bytes, None if they are not there."""
    at = 2 if head[:3] == b"\xff\xd8\xff" else len(head)
    while at + 9 <= len(head) and head[at] == 0xFF:
        if head[at + 1] in _FRAMES:
            return int.from_bytes(head[at + 7 : at + 9], "big"), int.from_bytes(head[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None


def _content(entry: bytes) -> tuple[int, int]:
    """Size and CRC of a member: two that agree are taken for copies."""
    return _ENTRY.unpack(entry)[2], _ENTRY.unpack(entry)[5]
