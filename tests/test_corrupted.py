"""Pictures under corruptions for a benchmark: made once, the same whatever ran before; and what is lost by them."""

import io
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sbt.benchmarks.common import corrupted
from sbt.benchmarks.common.corrupted import (
    ALL,
    CLEAN,
    CorruptedImages,
    curves,
    drop_rows,
    evaluate_corrupted,
    score,
    sheet,
    subset,
)
from sbt.data import corruptions, images
from sbt.utils.errors import DataError, ParameterError

matplotlib.use("Agg")


def picture(seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "images"
    found.mkdir()
    for k, name in enumerate(("a.png", "b.png", "c.png")):
        picture(k).save(found / name)
    return found


def contents(made: CorruptedImages) -> dict[str, bytes]:
    return {path.relative_to(made.folder).as_posix(): path.read_bytes() for path in made.folder.rglob("*.png")}


def test_made_in_any_order_they_are_the_same(folder: Path, tmp_path: Path) -> None:
    one, other = (CorruptedImages(folder, tmp_path / cache, 5) for cache in ("one", "other"))
    for name in ("gaussian_noise", "glass_blur"):
        assert [Path(file).stem.split(".")[0] for file in one.names(["a.png", "b.png"], name, 3)] == ["a", "b"]
    np.random.default_rng().random(3)
    np.random.seed(1)
    assert other.make(["b.png", "a.png", "b.png"], ["glass_blur", "gaussian_noise"], [3]) == ["b.png", "a.png"]
    assert contents(one) == contents(other) and len(contents(one)) == 4
    again = one.names(["b.png", "a.png", "b.png"], "gaussian_noise", 3)
    assert again[0] == again[2] != again[1]
    made = images.open_rgb(one.folder / again[1])
    assert made.tobytes() == corruptions.corrupt(picture(0), "gaussian_noise", 3, 5).tobytes()
    unlike = CorruptedImages(folder, tmp_path / "unlike", 6)
    unlike.names(["a.png", "b.png"], "gaussian_noise", 3)
    assert not set(contents(unlike).values()) & set(contents(one).values()), "another seed, another noise"


def test_made_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, told = CorruptedImages(folder, tmp_path / "cache"), []
    made.make(["a.png", "b.png"], ["fog"], [1, 2], progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    monkeypatch.setattr(corruptions, "corrupt", lambda *given: pytest.fail("made again"))
    assert len({*made.names(["a.png", "b.png"], "fog", 1), *made.names(["a.png", "b.png"], "fog", 2)}) == 4


def test_in_processes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrupted, "MANY", 2)
    one, two = (CorruptedImages(folder, tmp_path / cache) for cache in ("one", "two"))
    asked = (["a.png", "b.png", "c.png"], ["impulse_noise", "pixelate"], [2])
    assert one.make(*asked, workers=1) == two.make(*asked, workers=2) == asked[0]
    assert contents(one) == contents(two) and len(contents(two)) == 6


def test_bad_pictures_are_named_before_the_first_is_made(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (31, 40)).save(folder / "small.png")
    (folder / "text.jpg").write_text("hello")
    made = CorruptedImages(folder, tmp_path / "cache")
    with pytest.raises(DataError, match=r"3 of 4 images cannot be used \(1 missing, 1 not_an_image, 1 too_small\)"):
        made.make(["a.png", "small.png", "text.jpg", "gone.png"], ["fog"], [1])
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ParameterError, match="did you mean 'fog'"):
        made.make(["a.png"], ["fogg"], [1])
    with pytest.raises(ParameterError, match="whole number from 1 to 5, not 6"):
        made.names(["a.png"], "fog", 6)


@pytest.mark.parametrize("layout", ["val2014-c/{}/val2014", "flickr30k/test_images-c/{}/test_images", "{}"])
def test_ready_images_are_read_where_they_lie(layout: str, folder: Path, tmp_path: Path) -> None:
    ready = tmp_path / layout.format("fog/3")
    ready.mkdir(parents=True)
    picture(8).save(ready / "a.png")
    made = CorruptedImages(folder, tmp_path / "cache", ready=tmp_path)
    (name,) = made.names(["a.png"], "fog", 3)
    assert made.folder / name == ready / "a.png"
    assert made.make(["a.png"], ["fog"], [3]) == ["a.png"] and not (tmp_path / "cache").exists()
    with pytest.raises(DataError, match=r"1 of 2 images cannot be used \(1 missing\)(.|\n)*b\.png: does not exist"):
        made.make(["a.png", "b.png"], ["fog"], [3])
    with pytest.raises(DataError, match="no images under fog at severity 4"):
        made.make(["a.png"], ["fog"], [3, 4])


def test_bad_pictures_are_left_out_where_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (31, 40)).save(folder / "small.png")
    made = CorruptedImages(folder, tmp_path / "cache")
    assert made.make(["a.png", "small.png", "gone.png", "b.png"], ["fog"], [1], on_bad="skip") == ["a.png", "b.png"]
    assert len(contents(made)) == 2
    with pytest.raises(DataError, match=r"1 of 1 images cannot be used \(1 too_small\)"):
        made.make(["small.png"], ["fog"], [1], on_bad="skip")
    with pytest.raises(ParameterError, match="on_bad must be one of stop, skip"):
        made.make(["a.png"], ["fog"], [1], on_bad="leave")


def test_ready_images_are_decoded_before_any_is_asked_about(folder: Path, tmp_path: Path) -> None:
    """A picture that is bad under one corruption is left out of all: the same ones are compared."""
    ready, pictures = tmp_path / "ready", ["a.png", "b.png", "c.png"]
    for cell in ("fog/3", "snow/3"):
        (ready / cell).mkdir(parents=True)
        for k, name in enumerate(pictures):
            picture(k, (8, 8)).save(ready / cell / name)  # none of them is made here: 32 pixels are not asked for
    made = CorruptedImages(folder, tmp_path / "cache", ready=ready)
    assert made.make(pictures, ["fog", "snow"], [3]) == pictures
    (ready / "snow/3/b.png").write_text("no picture")
    with pytest.raises(DataError, match=r"1 of 6 images cannot be used \(1 not_an_image\)(.|\n)*snow/3/b\.png"):
        made.make(pictures, ["fog", "snow"], [3])
    kept = made.make(pictures, ["fog", "snow"], [3], on_bad="skip")
    assert kept == ["a.png", "c.png"]
    assert made.names(kept, "snow", 3) == ["snow/3/a.png", "snow/3/c.png"]
    for cell in ("fog/3/a.png", "snow/3/c.png"):
        (ready / cell).write_bytes(b"")
    with pytest.raises(DataError, match="each of the 3 pictures is bad in one folder or more"):
        made.make(pictures, ["fog", "snow"], [3], on_bad="skip")


def test_the_drop_is_paired() -> None:
    """Every picture loses a tenth: between pictures the scores differ widely, the drop does not."""
    clean = [1.0, 9.0, 2.0, 8.0, 5.0, 4.0]
    tenth, half = [0.9 * x for x in clean], [0.5 * x for x in clean]
    rows = drop_rows(clean, {"fog": {1: tenth, 5: half}, "snow": {1: clean, 5: clean}}, arm="x", benchmark="captions")
    assert [row["subset"] for row in rows] == [ALL, "fog", "snow"]
    for row, value in zip(rows, (0.15, 0.3, 0.0), strict=True):
        assert row["value"] == pytest.approx(value)
        assert not value or (row["low"], row["high"]) == pytest.approx((value, value))
        assert (row["metric"], row["n"], row["arm"]) == ("relative_drop", 6, "x")
    shuffled = drop_rows(clean, {"fog": {1: half[::-1]}}, seed=1)[1]
    assert shuffled["value"] == pytest.approx(0.5) and shuffled["low"] < 0.45 < 0.55 < shuffled["high"]


def test_the_drop_agrees_with_that_of_means_and_resamples_groups() -> None:
    rng = np.random.default_rng(0)
    clean = rng.random(40)
    under = {name: {level: rng.random(40) / level for level in (1, 3)} for name in ("fog", "snow")}
    found = drop_rows(clean, under, groups=[k // 4 for k in range(40)])
    means = {name: np.mean([values.mean() for values in by.values()]) for name, by in under.items()}
    assert found[0]["value"] == pytest.approx(1 - np.mean(list(means.values())) / clean.mean())
    assert found[2]["value"] == pytest.approx(1 - means["snow"] / clean.mean())
    assert found[0]["low"] < found[0]["value"] < found[0]["high"]
    assert found[0]["low"] != drop_rows(clean, under)[0]["low"]


def benchmark() -> SimpleNamespace:
    def samples(items: list[dict], answers: list[str], **common: str) -> list[dict]:
        return [
            {**common, "answer": a, "accuracy": float(a == i["right"])} for i, a in zip(items, answers, strict=True)
        ]

    def rows(items: list[dict], answers: list[str], *, seed: int, **common: str) -> list[dict]:
        value = sum(one["accuracy"] for one in samples(items, answers)) / len(items)
        measured = {"value": value, "low": value, "high": value, "n": len(items)}
        return [{"benchmark": "vqav2", "metric": "accuracy", **measured, **common}]

    def prompt(item: dict, protocol: str) -> str:
        return item["question"]

    return SimpleNamespace(rows=rows, samples=samples, prompt=prompt)


def test_items_without_a_usable_picture_are_left_out_of_clean_and_corrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = SimpleNamespace(
        seed=5,
        folder=tmp_path,
        make=lambda pictures, names, severities, **how: [name for name in pictures if name != "1.png"],
        names=lambda pictures, name, level: [f"{name}/{level}/{picture}" for picture in pictures],
    )
    items = [
        {"image": f"{k}.png", "question": f"p{k}", "right": "star", "demonstrations": [("q", str(k))]}
        for k in range(3)
    ]
    asked = []

    def generate(arm: object, requests: list[dict], **how: object) -> list[str]:
        asked.extend(requests)
        return ["star" if "fog" in str(one["image"]) else "cross" for one in requests]

    one = [("a", SimpleNamespace(conversation="v1"))]
    monkeypatch.setattr(corrupted.models, "load_vision_models", lambda arms: one)
    monkeypatch.setattr("sbt.benchmarks.common.evaluate.generation.generate", generate)
    given = benchmark(), items, {"a": "folder"}, {"a": ["star"] * 3}, made, tmp_path
    how = {"corruptions": ["fog", "snow"], "severities": [3], "value": "accuracy"}
    rows, samples = evaluate_corrupted(*given, **how, name="flickr30k", on_bad="skip")
    assert [one["text"] for one in asked] == ["p0", "p2"] * 2
    pictures = [Path(one["image"]).relative_to(tmp_path).as_posix() for one in asked]
    assert pictures == ["fog/3/0.png", "fog/3/2.png", "snow/3/0.png", "snow/3/2.png"]
    assert [one["demonstrations"] for one in asked] == [(("q", "0"),), (("q", "2"),)] * 2
    assert {row["subset"] for row in rows} >= {f"flickr30k, {CLEAN}", "flickr30k, fog, severity 3", "flickr30k, snow"}
    drop = {row["subset"]: (row["value"], row["n"]) for row in rows if row["metric"] == "relative_drop"}
    assert drop["flickr30k, fog"] == (0.0, 2) and drop["flickr30k, snow"] == (1.0, 2)
    assert len(samples) == 6 and {sample["protocol"] for sample in samples} == {"standard"}
    made.make = lambda pictures, *rest, **how: list(pictures)
    rows, _ = evaluate_corrupted(*given, **how, limit=2)
    assert {row["n"] for row in rows} == {2} and "fog, severity 3" in {row["subset"] for row in rows}
    for nothing in ({"corruptions": []}, {"severities": []}):
        assert evaluate_corrupted(*given, **{**how, **nothing}) == ([], [])


def test_score_and_curves() -> None:
    items = [{"image": f"{k // 2}.png", "right": "yes"} for k in range(8)]
    said = {CLEAN: ["yes"] * 8, subset("fog", 1): ["yes"] * 6 + ["no"] * 2, subset("fog", 5): ["no"] * 8}
    rows, samples = score(benchmark(), items, said, "accuracy", arm="mm-full", template_hash="t")
    assert len(samples) == 24 and {row["subset"] for row in rows} == {*said, ALL, "fog"}
    drop = {row["subset"]: row for row in rows if row["metric"] == "relative_drop"}
    assert drop["fog"]["value"] == pytest.approx(1 - 0.75 / 2) and drop["fog"]["benchmark"] == "vqav2"
    assert {row["template_hash"] for row in rows} == {"t"} and {row["protocol"] for row in rows} == {"standard"}
    frame = pd.DataFrame([*rows, {**rows[0], "subset": "blank", "value": 99.0}])
    figure = curves(frame[frame.metric == "accuracy"], "title", "accuracy")
    (axis,) = figure.axes
    assert axis.get_title() == "fog"
    assert [line.get_xydata().tolist() for line in axis.lines] == [[[0, 1], [1, 0.75], [5, 0]]]


def test_contact_sheet() -> None:
    data = sheet(picture(1, (64, 40)), severity=2, side=48)
    opened = Image.open(io.BytesIO(data))
    assert (opened.format, opened.size, opened.mode) == ("JPEG", (5 * 54, 4 * 70), "RGB")
    assert data == sheet(picture(1, (64, 40)), severity=2, side=48) and len(data) < 60_000
