"""Corrupted images: the same bytes whatever ran before, the library's own pixels, every size and mode, the cache."""

import importlib.metadata
import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
from PIL import Image, ImageDraw

from sbt.data import corruptions, images
from sbt.utils.errors import DataError, ParameterError, RunError

SIZES = [(32, 32), (33, 57), (57, 33), (32, 200)]
# Mean absolute difference from the clean image does not grow with every step of severity, by the library's settings:
# glass_blur moves pixels further but fewer times at 2 and 4; snow keeps only its lightest flakes from 3 on; frost
# shows one of six pictures, light or dark, and fog another cloud each time; spatter is water up to 3 and mud above;
# saturate takes colour away at 1 and 2 and adds it above.
NOT_GROWING = {"glass_blur", "snow", "frost", "fog", "spatter", "saturate"}
HANDFUL = [("gaussian_noise", 3), ("impulse_noise", 2), ("glass_blur", 1), ("frost", 4), ("elastic_transform", 5)]
CHILD = """
import json, random, sys
import numpy as np
from PIL import Image
from sbt.data import corruptions
from sbt.utils import files
np.random.seed(99)
image = Image.open(sys.argv[1])
jobs = json.loads(sys.argv[2])
found = {name: files.sha256(corruptions.corrupt(image, name, severity, 7).tobytes()) for name, severity in jobs[::-1]}
print(json.dumps(found))
"""


def picture(width: int = 64, height: int = 64) -> Image.Image:
    """Soft colours, two shapes and a thin line: something for blurs, noise and compression to spoil."""
    y, x = np.mgrid[:height, :width]
    planes = [60 + 140 * x / width, 90 + 90 * np.sin(y / 7) + 0 * x, 200 - 120 * y / height]
    image = Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse([width * 0.1, height * 0.2, width * 0.5, height * 0.7], fill=(220, 40, 30))
    draw.rectangle([width * 0.55, height * 0.35, width * 0.9, height * 0.8], fill=(30, 60, 200))
    draw.line([0, height, width, 0], fill=(10, 10, 10), width=2)
    return image


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(float)


def test_names() -> None:
    import imagecorruptions as library

    assert list(corruptions.COMMON) == library.get_corruption_names("common")
    assert sorted(corruptions.EXTRA) == sorted(library.get_corruption_names("validation"))
    assert (len(corruptions.COMMON), len(corruptions.NAMES)) == (15, 19)


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_every_severity_is_the_library_s_own_output_under_its_seed(name: str) -> None:
    import imagecorruptions

    image = picture()
    for severity in corruptions.SEVERITIES:
        ours = np.asarray(corruptions.corrupt(image, name, severity, 3))
        seed = corruptions.derived_seed(image, name, severity, 3)
        np.random.seed(seed)
        own = {"seed": seed} if name in ("impulse_noise", "glass_blur") else {}
        assert (ours == imagecorruptions.corrupt(np.asarray(image), severity, name, **own)).all()


def test_the_same_bytes_in_any_order() -> None:
    image = picture(48, 40)
    jobs = [(name, severity) for name in corruptions.NAMES for severity in (1, 3, 5)]
    first = {job: corruptions.corrupt(image, *job, 7).tobytes() for job in jobs}
    random.Random(1).shuffle(jobs)
    for number, job in enumerate(jobs):
        np.random.seed(number)
        np.random.normal(size=number)
        assert corruptions.corrupt(image, *job, 7).tobytes() == first[job]
        assert corruptions.corrupt(image, *job, 7).tobytes() == first[job]
    assert len(set(first.values())) == len(first)
    assert image.tobytes() == picture(48, 40).tobytes()  # the image given is as it was


def test_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    from sbt.utils import files

    picture(48, 40).save(tmp_path / "a.png")
    here = {name: files.sha256(corruptions.corrupt(picture(48, 40), name, s, 7).tobytes()) for name, s in HANDFUL}
    command = [sys.executable, "-c", CHILD, str(tmp_path / "a.png"), json.dumps(HANDFUL)]
    there = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(there.stdout) == here


def test_the_same_bytes_from_many_threads() -> None:
    jobs = [(name, seed) for name in ("gaussian_noise", "glass_blur", "snow", "impulse_noise") for seed in range(8)]

    def make(job: tuple[str, int]) -> bytes:
        return corruptions.corrupt(picture(), job[0], 3, job[1]).tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, jobs)) == [make(job) for job in jobs]


def test_seed_and_image_make_the_noise_another() -> None:
    grey = Image.new("RGB", (40, 40), (128, 128, 128))
    nearly = grey.copy()
    nearly.putpixel((0, 0), (128, 128, 129))
    for name in ("gaussian_noise", "impulse_noise"):
        zero = pixels(corruptions.corrupt(grey, name, 3, 0))[1:]
        assert (zero != pixels(corruptions.corrupt(grey, name, 3, 1))[1:]).any()
        assert (zero != pixels(corruptions.corrupt(nearly, name, 3, 0))[1:]).any()


def test_random_states_are_left_as_they_were() -> None:
    @numba.njit()
    def seed(number):
        np.random.seed(number)

    @numba.njit()
    def draw():
        return np.random.random()

    image = picture(40, 40)
    np.random.seed(5)
    np.random.normal()  # the second half of a pair is kept in the state
    before, ours = np.random.get_state(), random.getstate()
    seed(1)
    expected = draw(), draw()
    seed(1)
    found = [draw()]
    for name in corruptions.NAMES:
        corruptions.corrupt(image, name, 2)
    found.append(draw())
    after = np.random.get_state()
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert random.getstate() == ours
    assert tuple(found) == expected


def test_the_random_state_is_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(image: Image.Image, severity: int) -> None:
        np.random.normal()
        raise MemoryError

    monkeypatch.setattr(corruptions, "_library", lambda: {"fog": broken})
    before = np.random.get_state()[1].copy()
    with pytest.raises(MemoryError):
        corruptions.corrupt(picture(), "fog", 1)
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_statistics_grow_with_severity(name: str) -> None:
    clean = picture(128, 96)
    made = [[pixels(corruptions.corrupt(clean, name, s, k)) for k in range(3)] for s in corruptions.SEVERITIES]
    change = [np.mean([np.abs(one - pixels(clean)).mean() for one in same]) for same in made]
    assert min(change) > 0.5
    if name not in NOT_GROWING:
        assert all(low < high for low, high in zip(change, change[1:], strict=False)), change
    means = np.array([[one.mean(axis=(0, 1)) for one in same] for same in made]).mean(axis=1)  # severity x channel
    drift = np.abs(means - pixels(clean).mean(axis=(0, 1))).max()
    if name == "brightness":
        assert (np.diff(means, axis=0) > 0).all()
    elif name in ("contrast", "defocus_blur", "gaussian_blur", "pixelate", "jpeg_compression"):
        assert drift < 4  # they move light about, and do not add any


@pytest.mark.parametrize("size", SIZES)
def test_sizes(size: tuple[int, int], capsys: pytest.CaptureFixture) -> None:
    image = picture(*size)
    for name in corruptions.NAMES:
        for severity in corruptions.SEVERITIES:
            changed = corruptions.corrupt(image, name, severity)
            assert (changed.mode, changed.size) == ("RGB", size)
    assert capsys.readouterr() == ("", "")


def test_the_size_of_a_photograph() -> None:
    image = picture(640, 480)
    for name in corruptions.NAMES:
        assert corruptions.corrupt(image, name, 2).size == (640, 480)


def test_spatter_without_a_drop_is_the_clean_image() -> None:
    """The library divides 0 by 0 there, which it writes as black."""
    import imagecorruptions

    image = Image.new("RGB", (32, 32), (90, 120, 60))
    seeds = range(400)
    own = {}
    for seed in seeds:
        np.random.seed(corruptions.derived_seed(image, "spatter", 1, seed))
        with np.errstate(all="ignore"):
            own[seed] = np.asarray(imagecorruptions.corruption_dict["spatter"](image, 1))
    dry = [seed for seed in seeds if not np.isfinite(own[seed]).all()]
    assert dry
    for seed in dry:
        assert corruptions.corrupt(image, "spatter", 1, seed).tobytes() == image.tobytes()


def test_modes() -> None:
    image = picture(40, 36)
    grey = image.convert("L")
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    seen_through = image.convert("RGBA")
    seen_through.putalpha(grey)
    for given in (grey, wide, seen_through, image.convert("CMYK"), image.convert("P"), grey.convert("LA")):
        rgb = images.to_rgb(given)
        for name in ("gaussian_noise", "brightness", "saturate"):
            changed = corruptions.corrupt(given, name, 2)
            assert (changed.mode, changed.size) == ("RGB", (40, 36))
            assert changed.tobytes() == corruptions.corrupt(rgb, name, 2).tobytes()
    assert wide.mode.startswith("I;16") and images.to_rgb(wide).tobytes() == grey.convert("RGB").tobytes()


@pytest.mark.parametrize(
    "name, severity, seed, message",
    [
        ("gausian_noise", 1, 0, "did you mean 'gaussian_noise'"),
        ("motion", 1, 0, "there is no corruption 'motion'"),
        (None, 1, 0, "no corruption None"),
        ("fog", 0, 0, "whole number from 1 to 5, not 0"),
        ("fog", 6, 0, "not 6"),
        ("fog", True, 0, "not True"),
        ("fog", 2.5, 0, "not 2.5"),
        ("fog", "3", 0, "not '3'"),
        ("fog", 3, 0.5, "seed must be a whole number, not 0.5"),
    ],
)
def test_errors_of_parameters(name: str, severity: int, seed: int, message: str, tmp_path: Path) -> None:
    for act in (
        lambda: corruptions.corrupt(picture(), name, severity, seed),
        lambda: corruptions.cached(tmp_path / "a.png", tmp_path, name, severity, seed),
    ):
        with pytest.raises(ParameterError, match=message):
            act()


@pytest.mark.parametrize("size", [(31, 40), (40, 31)])
def test_too_small(size: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{size[0]} x {size[1]} pixels .* 32 or more. Enlarge it"):
        corruptions.corrupt(Image.new("RGB", size), "fog", 1)
    Image.new("RGB", size).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=r"small\.png: an image of .* Enlarge it"):
        corruptions.cached(tmp_path / "small.png", tmp_path / "made", "fog", 1)
    assert not list((tmp_path / "made").rglob("*.*"))


def test_library_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    corruptions._library.cache_clear()
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(RunError, match="pip install imagecorruptions-imaug==1.1.5"):
        corruptions.corrupt(picture(), "fog", 1)
    monkeypatch.undo()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.1.2")  # the older package is there as well
    with pytest.raises(RunError, match="pip uninstall imagecorruptions imagecorruptions-imaug, then pip install"):
        corruptions.corrupt(picture(), "fog", 1)
    monkeypatch.undo()
    assert corruptions.corrupt(picture(), "fog", 1).size == (64, 64)


def test_importing_it_does_not_load_the_library() -> None:
    code = "import sys; from sbt.data import corruptions"
    code += "; print({'imagecorruptions', 'numba', 'cv2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "COCO_val2014_000000000042.png"
    picture(40, 48).save(source)
    first = corruptions.cached(source, tmp_path / "made", "snow", 3, 5)
    assert first.relative_to(tmp_path / "made").parts[:2] == ("snow", "3") and first.suffix == ".png"
    assert first.name.startswith(source.stem)
    assert images.open_rgb(first).tobytes() == corruptions.corrupt(picture(40, 48), "snow", 3, 5).tobytes()
    others = {corruptions.cached(source, tmp_path / "made", *key) for key in (("snow", 3, 6), ("snow", 4, 5))}
    assert len(others | {first}) == 3
    with monkeypatch.context() as patch:  # a second time nothing is made
        patch.setattr(corruptions, "corrupt", lambda *given: pytest.fail("made again"))
        assert corruptions.cached(source, tmp_path / "made", "snow", 3, 5) == first
    picture(48, 40).save(source)  # other contents under the same name
    assert corruptions.cached(source, tmp_path / "made", "snow", 3, 5) != first
    assert not list((tmp_path / "made").rglob("*.part"))


def test_cached_says_which_file_is_bad_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"gone\.png: does not exist"):
        corruptions.cached(tmp_path / "gone.png", tmp_path, "fog", 1)
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(DataError, match=r"text\.jpg: is no JPEG"):
        corruptions.cached(tmp_path / "text.jpg", tmp_path, "fog", 1)

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    picture().save(tmp_path / "a.png")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RunError, match="the disk is full"):
        corruptions.cached(tmp_path / "a.png", tmp_path / "made", "fog", 1)
    assert [path for path in (tmp_path / "made").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("above", ["", "val2014-c", "mscoco/val2014-c"])
@pytest.mark.parametrize("last", ["", "val2014"])
def test_find_a_folder_of_ready_images(above: str, last: str, tmp_path: Path) -> None:
    ready = tmp_path / above / "fog" / "3" / last
    ready.mkdir(parents=True)
    assert corruptions.find(tmp_path, "fog", 3) == ready
    with pytest.raises(DataError, match=r"no images under fog at severity 4. Put them into .*fog/4/val2014"):
        corruptions.find(tmp_path, "fog", 4)
    with pytest.raises(ParameterError, match="did you mean 'fog'"):
        corruptions.find(tmp_path, "fogg", 3)


def test_contact_sheet() -> None:
    image = picture(40, 36)
    sheet = corruptions.contact_sheet(image, 2)
    assert [title for title, _ in sheet] == ["clean", *(f"{name}, 3" for name in corruptions.NAMES)]
    assert {(made.mode, made.size) for _, made in sheet} == {("RGB", (40, 36))}
    shown = dict(sheet)
    assert shown["clean"].tobytes() == image.tobytes()
    assert shown["fog, 3"].tobytes() == corruptions.corrupt(image, "fog", 3, 2).tobytes()
    assert dict(corruptions.contact_sheet(image, 2, 5)).keys() >= {"fog, 5"}
