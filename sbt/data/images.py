"""Image files, all of them checked before work starts, and the one way to open one: as RGB, grey and alpha handled.

A turn that EXIF asks for is counted and not applied: LLaVA's code does not apply it either.
"""

import contextlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from sbt.utils import paths
from sbt.utils.errors import DataError, ParameterError

# Pillow warns above this many pixels (its decompression-bomb limit) and refuses twice as many whatever is asked for.
MAX_PIXELS = 89_478_485
# Of an array with 1 or 3 rows transformers takes the rows for colours (image_utils.infer_channel_dimension_format).
MIN_SIDE = 4
# What benchmarks come in. Others stay closed: Pillow opens some text as pictures, and runs a program to draw EPS.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
BAD = ("missing", "damaged", "not_an_image", "too_small", "too_large")
NOTED = ("cmyk", "16_bit", "alpha", "wrong_extension", "exif_rotated", "animated")
ON_BAD = ("stop", "skip")
ORIENTATION, SIXTEEN_BITS = 0x0112, re.compile(r"(?!BGR)\w+;16")  # BGR;16 has 16 bits for all three colours
NAMED = 3  # bad files that an error names


class Problem(NamedTuple):
    """A file that cannot be used: its path, the kind (one of `BAD`) and the reason in words."""

    path: Path
    kind: str
    reason: str


class Report(NamedTuple):
    """What `check` found: problems and good files in the order asked for; counts of `files`, `good`, BAD and NOTED.

    `noted`: which of NOTED a good file is, of those that are any.
    """

    problems: list[Problem]
    good: list[Path]
    counts: dict[str, int]
    noted: dict[Path, list[str]]


class _Unusable(Exception):
    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def check(
    files: Iterable[Path | str],
    *,
    max_pixels: int = MAX_PIXELS,
    min_side: int = MIN_SIDE,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Decode every file, each once, in threads; nothing is raised for a file that is bad.

    `max_pixels` bounds the square over the longer side, which also keeps out strips: padding to a square, or resizing
    by the short side, makes them huge. Larger files are not decoded. `progress(done, total)` after each file.
    What NOTED counts can be used: CMYK, 16 bits and alpha converted as in `to_rgb`, of an animation the first frame,
    whatever the extension, EXIF rotation not applied. A file that is good here opens with `open_rgb`.
    """
    files = list(dict.fromkeys(Path(file) for file in files))
    problems, good, noted, found = [], [], {}, Counter()
    look = partial(_look, max_pixels=max_pixels, min_side=min_side)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on a file's metadata; what matters is reported
        for done, (file, seen) in enumerate(zip(files, pool.map(look, files), strict=True), start=1):
            if isinstance(seen, Problem):
                problems.append(seen)
                found[seen.kind] += 1
            else:
                good.append(file)
                found.update(seen)
                if seen:
                    noted[file] = seen
            if progress:
                progress(done, len(files))
    counts = {"files": len(files), "good": len(good), **{key: found[key] for key in (*BAD, *NOTED)}}
    return Report(problems, good, counts, noted)


def settle(report: Report, on_bad: str = "stop") -> tuple[list[Path], list[Problem]]:
    """(good, bad) files of a report; `on_bad` "stop": DataError if any is bad, "skip": only if none is good.

    The error counts the bad files by kind and names the first ones. ParameterError for another `on_bad`.
    """
    if on_bad not in ON_BAD:
        raise ParameterError(f"on_bad must be one of {', '.join(ON_BAD)}, not {on_bad!r}")
    bad, good = report.problems, report.good
    if bad and (on_bad == "stop" or not good):
        kinds = ", ".join(f"{report.counts[kind]} {kind}" for kind in BAD if report.counts[kind])
        lines = [f"  {paths.shown(problem.path)}: {problem.reason}" for problem in bad[:NAMED]]
        more = [f"  and {len(bad) - NAMED} more"] if len(bad) > NAMED else []
        remedy = "Replace these files" + (", or set on_bad='skip' to leave them out" if good else "; no other is left")
        total = report.counts["files"]
        raise DataError("\n".join([f"{len(bad)} of {total} images cannot be used ({kinds}):", *lines, *more, remedy]))
    return good, bad


def open_rgb(path: Path | str) -> Image.Image:
    """The first frame of an image file in RGB, as `to_rgb` makes it, EXIF rotation not applied.

    DataError that names file and reason where there is none.
    """
    try:
        with _opened(Path(path)) as opened, _decoding():
            return to_rgb(opened)
    except _Unusable as error:
        raise DataError(f"{paths.shown(Path(path))}: {error}. Replace the file or leave it out") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in RGB: 16 bits scaled to 8 (65,535 is white), alpha on white, CMYK by Pillow's rule.

    DataError for pixels without an agreed white: floats, and integers outside of 16 bits.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DataError(f"its values, {values.min()} to {values.max()}, are not 8 or 16 bits. Save it with 8 bits")
        return Image.fromarray(((values * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DataError("its values are floats, which have no agreed white. Save it with 8 bits")
    if _see_through(image):
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), above).convert("RGB")
    return image.convert("RGB")


def _see_through(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info


def _look(path: Path, *, max_pixels: int, min_side: int) -> Problem | list[str]:
    """What is wrong with a file, or which of NOTED it is."""
    try:
        with _opened(path) as opened:
            (width, height), name = opened.size, f"{opened.width} x {opened.height} pixels"
            if min(width, height) < min_side:
                raise _Unusable("too_small", f"{name}, but each side must have {min_side} or more")
            if max(width, height) ** 2 > max_pixels:
                limit = f"the limit is {max_pixels:,}, which is {int(max_pixels**0.5):,} on its longer side"
                raise _Unusable("too_large", f"{name}: {limit}")
            notes = _notes(path, opened)
            with _decoding():
                to_rgb(opened)
        with _opened(path) as opened, _decoding():
            opened.verify()  # compares a PNG's checksums, which decoding does not, and does no more
    except _Unusable as error:
        return Problem(path, error.kind, str(error))
    return notes


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=FORMATS)
    except FileNotFoundError:
        raise _Unusable("missing", "does not exist") from None
    except UnidentifiedImageError:
        start = _start(path)
        what = f"it begins with {start!r}" if start else "it is empty"
        raise _Unusable("not_an_image", f"is no {', '.join(FORMATS)} file: {what}") from None
    except Image.DecompressionBombError as error:
        raise _Unusable("too_large", f"is larger than Pillow opens ({error})") from None
    except IsADirectoryError:
        raise _Unusable("not_an_image", "is a folder") from None
    except Exception as error:  # Pillow raises many types, SyntaxError and struct.error among them
        raise _Unusable("damaged", f"cannot be read ({error})") from None


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(12)


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise _Unusable("damaged", str(error)) from None
    except Exception as error:  # as above
        raise _Unusable("damaged", f"does not decode ({error})") from None


def _notes(path: Path, opened: Image.Image) -> list[str]:
    """Which of NOTED an opened file is; called before it is decoded, which forgets how its bytes are stored."""
    claimed = Image.registered_extensions().get(path.suffix.lower(), opened.format)
    stored = opened.tile[0][3] if opened.tile else ""
    stored = str(stored[0] if isinstance(stored, tuple) else stored)
    turned = 1
    with contextlib.suppress(Exception):  # damaged EXIF is no reason to refuse the pixels
        turned = opened.getexif().get(ORIENTATION, 1)
    notes = {
        "cmyk": opened.mode == "CMYK",
        "16_bit": opened.mode.startswith("I;16") or bool(SIXTEEN_BITS.match(stored)),
        "alpha": _see_through(opened),
        "wrong_extension": claimed != opened.format and {claimed, opened.format} != {"JPEG", "MPO"},
        "exif_rotated": turned in range(2, 9),
        "animated": opened.format != "MPO" and getattr(opened, "is_animated", False),  # MPO: a JPEG and its previews
    }
    return [name for name in NOTED if notes[name]]
