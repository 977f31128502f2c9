"""Images inside a zip: found by name, refused, damaged ones named, read by several processes at once."""

import io
import multiprocessing
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sbt.data import image_zip
from sbt.data.image_zip import ImageZip, look, open_image, reference, split
from sbt.utils.errors import DataError


def picture(kind: str = "JPEG", size: tuple[int, int] = (40, 30), number: int = 0) -> bytes:
    data, noise = io.BytesIO(), np.random.default_rng(number)
    Image.fromarray(noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(data, kind)
    return data.getvalue()


def packed(file: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", method) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return file


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read_as_they_are(tmp_path: Path, method: int) -> None:
    members = {"a.jpg": picture(), "deep/b.png": picture("PNG"), "empty.jpg": b""}
    opened = ImageZip(packed(tmp_path / "i.zip", members, method))
    assert len(opened) == 3 and {name: opened.read(name) for name in members} == members
    assert [opened.look(name) for name in ("a.jpg", "deep/b.png")] == ["", ""]
    assert opened.look("empty.jpg") == "the file is empty"
    with pytest.raises(DataError, match=r"i\.zip, member 'c\.jpg': no such member"):
        opened.read("c.jpg")


def test_a_name_finds_its_member_with_more_or_fewer_folders(tmp_path: Path) -> None:
    names = ["train2017/1.jpg", "2.jpg", "x/3.jpg", "y/3.jpg", "y/3.jpg.png"]
    opened = ImageZip(packed(tmp_path / "i.zip", dict.fromkeys(names, b"")))
    assert opened.find("1.jpg") == opened.find("coco/train2017/1.jpg") == "train2017/1.jpg"
    assert opened.find("coco/2.jpg") == "2.jpg" and opened.find("y/3.jpg") == "y/3.jpg"
    assert [opened.find(name) for name in ("val2017/1.jpg", "4.jpg", "12.jpg", "jpg")] == [None] * 4
    with pytest.raises(DataError, match="'3.jpg' fits 2 members of i.zip: x/3.jpg, y/3.jpg"):
        opened.find("3.jpg")


@pytest.mark.parametrize("name", ["../a.jpg", "x/../../a.jpg", "/etc/a.jpg", "C:/a.jpg", "x\\..\\a.jpg", "..", "c:a"])
def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    opened = ImageZip(packed(tmp_path / "i.zip", {name: picture(), "fine..jpg": picture()}))
    assert opened.refused == [name] and len(opened) == 1 and opened.find("fine..jpg")
    with pytest.raises(DataError, match="refused"):
        opened.find(name)
    with pytest.raises(DataError, match="refused"):
        opened.read(name)
    assert opened.find("a.jpg") is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_truncated_image_is_found_and_a_whole_one_is_not(tmp_path: Path, kind: str) -> None:
    whole = picture(kind, (200, 150))
    members = {"whole": whole, "cut": whole[: len(whole) * 2 // 3], "stub": whole[:30], "tail": whole + b"\0" * 5000}
    opened = ImageZip(packed(tmp_path / "i.zip", members))
    assert opened.look("whole") == "" and opened.look("tail") == ""
    if kind != "GIF":  # Pillow fills what a GIF lacks
        assert "cut off or damaged" in opened.look("cut")
    assert opened.look("stub")


def test_what_is_no_usable_image_is_said(tmp_path: Path) -> None:
    members = {
        "text.jpg": b"<html>404 Not Found</html>",
        "thin.png": picture("PNG", (2000, 2)),
        "long.png": picture("PNG", (9600, 8)),
    }
    opened = ImageZip(packed(tmp_path / "i.zip", members))
    assert "it begins with b'<html>404" in opened.look("text.jpg") and "no JPEG" in opened.look("text.jpg")
    assert opened.look("thin.png").startswith("2000 x 2 pixels") and opened.look("long.png").startswith("9600 x 8")
    (tmp_path / "plain.jpg").write_bytes(members["text.jpg"])
    assert look(str(tmp_path / "plain.jpg")) == opened.look("text.jpg")
    assert "No such file" in look(str(tmp_path / "none.jpg"))


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    file = packed(tmp_path / "i.zip", {"a.jpg": picture(), "b.jpg": picture(number=1)})
    data = bytearray(file.read_bytes())
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut\.zip: no whole zip file"):
        ImageZip(tmp_path / "cut.zip")
    with pytest.raises(DataError, match=r"none\.zip does not exist"):
        ImageZip(tmp_path / "none.zip")
    data[200] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"i\.zip, member 'a\.jpg': its checksum is wrong"):
        ImageZip(file).read("a.jpg")
    data[:4] = b"\0\0\0\0"
    file.write_bytes(data)
    with pytest.raises(DataError, match="not where the directory says"):
        ImageZip(file).read("a.jpg")
    assert ImageZip(file).read("b.jpg") == picture(number=1)


def test_a_member_that_unpacks_to_more_than_it_declares_is_refused_early(tmp_path: Path) -> None:
    members = {"bomb.png": bytes(50_000_000), "fine.png": picture("PNG")}
    file = packed(tmp_path / "i.zip", members, zipfile.ZIP_DEFLATED)
    data = file.read_bytes()
    file.write_bytes(data.replace((50_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    opened = ImageZip(file)
    assert opened.sizes()["bomb.png"] == 10
    tracemalloc.start()
    with pytest.raises(DataError, match=r"member 'bomb\.png': unpacks to more than the 10 bytes it declares"):
        opened.read("bomb.png")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000, "it was unpacked before it was refused"
    tracemalloc.stop()
    assert opened.read("fine.png") == picture("PNG")


def test_a_member_larger_than_any_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_zip, "LARGEST", 1000)
    opened = ImageZip(packed(tmp_path / "i.zip", {"a.png": bytes(1001), "b.png": bytes(1000)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(DataError, match=r"member 'a\.png': takes 1,001 bytes; up to 1,000 are read"):
        opened.read("a.png")
    assert opened.read("b.png") == bytes(1000)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused_unless_both_are_the_same(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "i.zip", "w") as made:
        for name, data in (("a.jpg", picture()), ("b.jpg", picture()), ("a.jpg", picture()), ("b.jpg", b"other")):
            made.writestr(name, data)
    opened = ImageZip(tmp_path / "i.zip")
    assert opened.refused == ["b.jpg"] and opened.read("a.jpg") == picture()
    for ask in (opened.find, opened.read):
        with pytest.raises(DataError, match=r"b\.jpg'.* stands twice with different contents: refused"):
            ask("b.jpg")


def test_references_open_zips_and_plain_files_alike(tmp_path: Path) -> None:
    file = packed(tmp_path / "i::x.zip", {"ab::c.jpg": picture()})
    (tmp_path / "plain.png").write_bytes(picture("PNG"))
    ref = reference(file, "ab::c.jpg")
    assert split(ref) == (str(file), "ab::c.jpg") and split(str(tmp_path / "plain.png")) is None
    assert open_image(ref).size == open_image(str(tmp_path / "plain.png")).size == (40, 30)
    (tmp_path / "plain.png").write_text("no picture")
    for broken in (reference(file, "no.jpg"), str(tmp_path / "plain.png"), str(tmp_path / "none.png")):
        with pytest.raises(DataError, match=r"no\.jpg|plain\.png|none\.png"):
            open_image(broken)


def _sums(ref: str, count: int, found: multiprocessing.SimpleQueue) -> None:
    found.put([hash(open_image(ref.replace("@", str(n))).convert("RGB").tobytes()) for n in range(count)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_share_an_open_zip(tmp_path: Path) -> None:
    file = packed(tmp_path / "i.zip", {f"{n}.jpg": picture(number=n) for n in range(40)})
    ref = reference(file, "@.jpg")
    alone: multiprocessing.SimpleQueue = multiprocessing.SimpleQueue()
    _sums(ref, 40, alone)  # opened before the fork: the children inherit its handle
    assert image_zip.open_zip.cache_info().currsize >= 1
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    workers = [context.Process(target=_sums, args=(ref, 40, found)) for _ in range(3)]
    for worker in workers:
        worker.start()
    results = [found.get() for _ in workers]
    for worker in workers:
        worker.join(20)
    expected = alone.get()
    assert results == [expected] * 3 and len(set(expected)) == 40
