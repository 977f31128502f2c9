"""Image files: every fault is found and named before work starts; what is opened is RGB."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sbt.data import images
from sbt.utils.errors import DataError, ParameterError

BLOCK = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return len(data).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)


def write_png(path: Path, size: tuple[int, int], bits: int, colour: int, rows: bytes) -> None:
    """A PNG by hand: Pillow writes no 16-bit colour, and would have to hold a huge image to write its header."""
    header = size[0].to_bytes(4) + size[1].to_bytes(4) + bytes([bits, colour, 0, 0, 0])
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One file of each kind."""
    image = Image.fromarray(BLOCK)
    image.save(tmp_path / "good.png")
    image.save(tmp_path / "good.jpg")
    image.save(tmp_path / "whole.jpg", quality=95)
    (tmp_path / "truncated.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-800])
    (tmp_path / "truncated.png").write_bytes((tmp_path / "good.png").read_bytes()[:-800])
    damaged = bytearray((tmp_path / "good.png").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "damaged.png").write_bytes(damaged)
    (tmp_path / "head.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:30])
    (tmp_path / "text.jpg").write_text("this is not a picture\n")
    (tmp_path / "define.jpg").write_text("#define x_width 8\n#define x_height 1\nstatic char x_bits[] = {0x00};\n")
    (tmp_path / "empty.png").touch()
    (tmp_path / "inner.png").mkdir()
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    Image.new("RGB", (40, 1)).save(tmp_path / "line.png")
    Image.new("RGB", (20_000, 8)).save(tmp_path / "strip.png")
    write_png(tmp_path / "wide.png", (20_000, 20_000), 8, 2, b"")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(BLOCK[..., 0].astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    write_png(tmp_path / "colour16.png", (4, 4), 16, 2, (b"\0" + b"\xff\xff\x80\x80\0\0" * 4) * 4)
    image.convert("RGBA").save(tmp_path / "alpha.png")
    image.save(tmp_path / "really_png.jpg", format="PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (48, 40), "red")])
    image.save(tmp_path / "two.mpo", format="MPO", save_all=True, append_images=[Image.new("RGB", (48, 40), "red")])
    (tmp_path / "two.jpg").write_bytes((tmp_path / "two.mpo").read_bytes())  # as telephones write them
    Image.fromarray(BLOCK[..., 0].astype(np.float32)).save(tmp_path / "floats.tiff")
    return tmp_path


KINDS = {
    "missing.jpg": ("missing", "does not exist"),
    "truncated.jpg": ("damaged", "truncated"),
    "truncated.png": ("damaged", "does not decode"),
    "damaged.png": ("damaged", "does not decode"),
    "head.jpg": ("", ""),  # either of two kinds, see below
    "text.jpg": ("not_an_image", "it begins with b'this is not "),
    "define.jpg": ("not_an_image", "it begins with b'#define"),
    "empty.png": ("not_an_image", "it is empty"),
    "inner.png": ("not_an_image", "is a folder"),
    "one.png": ("too_small", "1 x 1 pixels, but each side must have 4"),
    "line.png": ("too_small", "40 x 1 pixels"),
    "strip.png": ("too_large", "20000 x 8 pixels: the limit is 89,478,485"),
    "wide.png": ("too_large", "400000000 pixels"),
    "floats.tiff": ("damaged", "floats, which have no agreed white"),
}
USABLE = {
    "good.png": [],
    "good.jpg": [],
    "two.mpo": [],
    "two.jpg": [],
    "cmyk.jpg": ["cmyk"],
    "grey16.png": ["16_bit"],
    "colour16.png": ["16_bit"],
    "alpha.png": ["alpha"],
    "really_png.jpg": ["wrong_extension"],
    "turned.jpg": ["exif_rotated"],
    "moving.gif": ["animated"],
}


@pytest.mark.parametrize("name", KINDS)
def test_what_cannot_be_used(name: str, folder: Path) -> None:
    report = images.check([folder / name])
    (problem,) = report.problems
    kind, words = KINDS[name]
    assert problem.path == folder / name
    assert problem.kind == kind or (not kind and problem.kind in ("damaged", "not_an_image"))
    assert words in problem.reason
    assert (report.good, report.counts["good"], report.counts[problem.kind]) == ([], 0, 1)


@pytest.mark.parametrize("name", USABLE)
def test_what_can_be_used_is_counted_by_its_kind(name: str, folder: Path) -> None:
    report = images.check([folder / name])
    assert (report.problems, report.good) == ([], [folder / name])
    assert [key for key in images.NOTED if report.counts[key]] == USABLE[name]
    assert images.open_rgb(folder / name).mode == "RGB"


def test_all_at_once_each_file_once_in_order(folder: Path) -> None:
    names = [*KINDS, *USABLE]
    seen = []
    report = images.check([folder / name for name in names * 2], progress=lambda *given: seen.append(given))
    assert [problem.path.name for problem in report.problems] == list(KINDS)
    assert [path.name for path in report.good] == list(USABLE)
    assert seen == [(done, len(names)) for done in range(1, len(names) + 1)]
    assert (report.counts["files"], report.counts["good"]) == (len(names), len(USABLE))
    assert sum(report.counts[kind] for kind in images.BAD) == len(KINDS)
    assert list(report.counts) == ["files", "good", *images.BAD, *images.NOTED]


def test_limits(folder: Path) -> None:
    good = [folder / "good.png"]  # 48 x 40
    assert images.check(good, min_side=40, max_pixels=48 * 48).problems == []
    assert "40 pixels, but each side must have 41 or more" in images.check(good, min_side=41).problems[0].reason
    assert images.check(good, max_pixels=48 * 48 - 1).problems[0].kind == "too_large"
    assert images.check([folder / "strip.png"], max_pixels=20_000**2).problems == []


def test_a_large_image_is_not_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(folder / "tall.png", (12_000, 12_000), 8, 2, b"")  # over the limit, under the one where Pillow refuses
    monkeypatch.setattr(images, "to_rgb", lambda image: pytest.fail("decoded"))
    (problem,) = images.check([folder / "tall.png"]).problems
    assert (problem.kind, "12000 x 12000" in problem.reason) == ("too_large", True)


def test_stop_counts_names_and_says_what_to_do(folder: Path) -> None:
    files = [folder / name for name in ("good.png", "missing.jpg", "text.jpg", "truncated.jpg", "one.png", "line.png")]
    with pytest.raises(DataError) as caught:
        images.settle(images.check(files))
    lines = str(caught.value).splitlines()
    count = "5 of 6 images cannot be used (1 missing, 1 damaged, 1 not_an_image, 2 too_small):"
    assert lines[0] == count
    assert lines[1].endswith("missing.jpg: does not exist") and "text.jpg: is no JPEG" in lines[2]
    assert "truncated.jpg: does not decode (" in lines[3]
    assert lines[4:] == ["  and 2 more", "Replace these files, or set on_bad='skip' to leave them out"]


def test_skip_leaves_them_out(folder: Path) -> None:
    files = [folder / name for name in ("good.png", "one.png", "good.jpg")]
    good, bad = images.settle(images.check(files), "skip")
    assert (good, [problem.path.name for problem in bad]) == ([files[0], files[2]], ["one.png"])
    assert images.settle(images.check(files, min_side=1)) == (files, [])
    assert images.settle(images.check([])) == ([], [])
    with pytest.raises(DataError, match="(?s)1 of 1 images cannot be used .*no other is left"):
        images.settle(images.check([files[1]]), "skip")


def test_an_unknown_choice(folder: Path) -> None:
    with pytest.raises(ParameterError, match="on_bad must be one of stop, skip, not 'ignore'"):
        images.settle(images.check([folder / "good.png"]), "ignore")


# damaged.png may decode: only the check compares checksums. Small ones open, and so do strips.
@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"damaged.png", "one.png", "line.png", "strip.png"}))
def test_opening_a_bad_file_names_it(name: str, folder: Path) -> None:
    with pytest.raises(DataError, match=f"{name}: .*Replace the file or leave it out"):
        images.open_rgb(folder / name)


def test_opened_pixels(folder: Path) -> None:
    opened = {name: np.asarray(images.open_rgb(folder / name)).astype(int) for name in USABLE}
    grey = np.repeat(BLOCK[..., :1], 3, axis=-1)
    assert (opened["good.png"] == BLOCK).all() and (opened["really_png.jpg"] == BLOCK).all()
    assert (opened["grey16.png"] == grey).all()  # a plain convert("RGB") clips at 255: nearly all white
    assert (opened["colour16.png"] == [255, 128, 0]).all()
    assert opened["turned.jpg"].shape == (40, 48, 3)  # as stored: not turned by EXIF
    assert np.abs(opened["cmyk.jpg"] - BLOCK).mean() < 60
    assert opened["moving.gif"].std() > 40  # the first frame, not the red one


def test_cmyk_is_not_turned_into_its_negative(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (250, 240, 230)).convert("CMYK").save(tmp_path / "light.jpg")
    assert np.asarray(images.open_rgb(tmp_path / "light.jpg")).mean() > 220


def test_alpha_lies_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("LA", (4, 4), (0, 128))
    index = Image.new("P", (4, 4), 0)
    index.putpalette([10, 20, 30])
    index.info["transparency"] = 0
    keyed = Image.new("RGB", (4, 4), (1, 2, 3))
    keyed.info["transparency"] = (1, 2, 3)
    assert images.to_rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    assert images.to_rgb(half).getpixel((0, 0)) == (127, 127, 127)
    assert images.to_rgb(index).getpixel((0, 0)) == (255, 255, 255)
    assert images.to_rgb(keyed).getpixel((0, 0)) == (255, 255, 255)


def test_values_without_an_agreed_white() -> None:
    assert images.to_rgb(Image.new("I", (4, 4), 65_535)).getpixel((0, 0)) == (255, 255, 255)
    for value in (-1, 70_000):
        with pytest.raises(DataError, match="are not 8 or 16 bits. Save it with 8 bits"):
            images.to_rgb(Image.new("I", (4, 4), value))
    with pytest.raises(DataError, match="floats"):
        images.to_rgb(Image.new("F", (4, 4), 0.5))


def test_what_to_rgb_returns_is_another_image() -> None:
    image = Image.new("RGB", (4, 4))
    images.to_rgb(image).putpixel((0, 0), (9, 9, 9))
    assert image.getpixel((0, 0)) == (0, 0, 0)
