"""The 15 corruptions of ImageNet-C and its 4 extra ones (Hendrycks and Dietterich 2019), made by `imagecorruptions`.

The same pixels, name, severity and seed give the same bytes, whatever ran before. A `cached` one is made once.
"""

import contextlib
import functools
import importlib.metadata
import io
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from sbt.data import images
from sbt.utils import files, paths
from sbt.utils.errors import DataError, ParameterError, RunError
from sbt.utils.text import nearest

COMMON = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
EXTRA = ("gaussian_blur", "speckle_noise", "spatter", "saturate")
NAMES = (*COMMON, *EXTRA)
SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIDE = 32  # pixels; the library's own limit
PACKAGE, VERSION = "imagecorruptions-imaug", "1.1.5"
RIVAL = "imagecorruptions"  # the package it was made from: the same module name, and it fails with NumPy 2
OWN_RANDOM = (
    "glass_blur",
    "impulse_noise",
)  # never from NumPy's global generator: from numba's, their own
# where {name}/{severity} may lie in a folder of ready images, and what may follow it
LAYOUT = ("", "val2014-c", "mscoco/val2014-c", "test_images-c", "flickr30k/test_images-c")
READY = ("val2014", "test_images", "")
_ONE = threading.Lock()  # NumPy's global generator is one for all threads


def corrupt(image: Image.Image, name: str, severity: int, seed: int = 0) -> Image.Image:
    """The image in RGB, of the same size, under one corruption; the image given is left as it is.

    Any mode (`images.to_rgb`), any aspect. NumPy's, numba's and Python's random states neither matter nor change;
    but no other thread may draw from `np.random` meanwhile. Bytes are equal on one machine and set of packages.
    Defects of the library are kept, such as the doubled pixels of glass_blur; one is not: spatter finds no drop on
    some images of less than 64 pixels and divides 0 by 0, which here leaves the image clean.
    ParameterError: unknown name, severity or seed. DataError: smaller than 32 pixels. RunError: library not installed.
    """
    _checked(name, severity, seed)
    if min(image.size) < MIN_SIDE:
        raise DataError(
            f"an image of {image.width} x {image.height} pixels cannot be corrupted: each side must have {MIN_SIDE} "
            "or more. Enlarge it, or leave it out"
        )
    image = images.to_rgb(image)
    function, number = _library()[name], derived_seed(image, name, severity, seed)
    if name == "glass_blur":  # each thread has its own generator of numba, so a new one leaves the caller's alone
        with ThreadPoolExecutor(1) as pool:
            changed = pool.submit(function, image, severity, seed=number).result()
    elif name in OWN_RANDOM:
        changed = function(image, severity, seed=number)
    else:
        with _global_seed(number), np.errstate(divide="ignore", invalid="ignore"):
            changed = function(image, severity)
    changed = np.asarray(changed)
    return Image.fromarray(np.where(np.isfinite(changed), changed, np.asarray(image)).astype(np.uint8))


def derived_seed(image: Image.Image, name: str, severity: int, seed: int) -> int:
    """The number, of 32 bits, that seeds the library for one RGB image: images differ in their noise."""
    key = json.dumps([seed, name, severity, image.size]).encode()
    return int(files.sha256(key + image.tobytes())[:8], 16)


def cached(path: Path | str, folder: Path | str, name: str, severity: int, seed: int = 0) -> Path:
    """A PNG of an image file under one corruption, in `folder`/name/severity, made only if it is not there yet.

    Its name ends in a hash of the file's contents, the seed and the library's version: what has changed is made anew.
    Raises as `corrupt` and `images.open_rgb` do, with the file's name.
    """
    _checked(name, severity, seed)
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{paths.shown(path)}: does not exist")
    key = files.sha256(json.dumps([PACKAGE, VERSION, files.file_hash(path), name, severity, seed]))[:16]
    target = Path(folder) / name / str(severity) / f"{path.stem}.{key}.png"
    if target.exists():
        return target
    image = images.open_rgb(path)
    try:
        changed = corrupt(image, name, severity, seed)
    except DataError as error:
        raise DataError(f"{paths.shown(path)}: {error}") from None
    buffer = io.BytesIO()
    changed.save(buffer, "PNG", compress_level=1)  # noise does not compress: higher levels only take longer
    files.write_bytes(target, buffer.getvalue())
    return target


def find(folder: Path | str, name: str, severity: int) -> Path:
    """Folder of ready images in the layout mscoco/val2014-c/{name}/{severity}/val2014, the last part if it is there.

    `folder` is the one that holds `mscoco`, `val2014-c` or the names; or flickr30k/test_images-c/.../test_images.
    DataError, with the remedy, where none does. Source: UCSC-VLAA/Sight-Beyond-Text@47f96a3, evaluate.py:349, 383.
    """
    _checked(name, severity, 0)
    folder = paths.resolve(str(folder))
    for start in LAYOUT:
        found = folder / start / name / str(severity)
        for last in READY:
            if (found / last).is_dir():
                return found / last
    raise DataError(
        f"{paths.shown(folder)}: no images under {name} at severity {severity}. Put them into "
        f"{paths.shown(folder / name / str(severity) / 'val2014')}, or name no folder: they are then made on the fly"
    )


def contact_sheet(image: Image.Image, seed: int = 0, severity: int = 3) -> list[tuple[str, Image.Image]]:
    """(title, image): the clean image, then it under all 19 corruptions; raises as `corrupt` does."""
    sheet = [(f"{name}, {severity}", corrupt(image, name, severity, seed)) for name in NAMES]
    return [("clean", images.to_rgb(image)), *sheet]


def _checked(name: str, severity: int, seed: int) -> None:
    if name not in NAMES:
        raise ParameterError(f"there is no corruption {name!r}{nearest(str(name), NAMES)}")
    if type(severity) is not int or severity not in SEVERITIES:  # True would pass for 1, 2.0 for 2
        raise ParameterError(f"the severity of {name} must be a whole number from 1 to 5, not {severity!r}")
    if type(seed) is not int:
        raise ParameterError(f"the seed must be a whole number, not {seed!r}")


@functools.cache
def _library() -> dict[str, Callable]:
    """The library's functions by name; it takes 2 seconds to load, so only where it is needed."""
    install = f"pip install {PACKAGE}=={VERSION}"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version(RIVAL)
        raise RunError(
            f"the package {RIVAL} is installed, which overwrites {PACKAGE}. "
            f"Run: pip uninstall {RIVAL} {PACKAGE}, then {install}"
        )
    try:
        import imagecorruptions
    except ImportError as error:
        raise RunError(f"corrupting images needs the package {PACKAGE} ({error}). Run: {install}") from error
    return imagecorruptions.corruption_dict


@contextlib.contextmanager
def _global_seed(number: int) -> Iterator[None]:
    """NumPy's global generator, seeded, for one thread at a time; afterwards as it was."""
    with _ONE:
        before = np.random.get_state()
        np.random.seed(number)
        try:
            yield
        finally:
            np.random.set_state(before)
