"""Pictures of a sample out of a zip on the web: only they are fetched, by ranges of bytes, and each is checked."""

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from PIL import Image

from sbt.data import download, image_zip, ranges, training_sets
from sbt.data.registry import SOURCES, File, Mirror, Source
from sbt.utils.errors import DataError

COUNT, SAMPLE = 3_000, 20


def picture(number: int) -> bytes:
    held = io.BytesIO()
    Image.frombytes("RGB", (24, 24), bytes((number * 7 + k * k) % 256 for k in range(24 * 24 * 3))).save(held, "PNG")
    return held.getvalue()


@pytest.fixture(scope="module")
def archive() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as packed:
        for number in range(COUNT):
            packed.writestr(f"train2017/{number:012}.png", picture(number))
    return held.getvalue()


@pytest.fixture
def web(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A server of one zip: `sent` bytes, `asked` ranges; `whole`: it knows no ranges; `spoil`: answers to damage."""
    state = SimpleNamespace(data=archive, sent=0, asked=[], whole=False, spoil=0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            begin, _, end = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")
            size = len(state.data)
            first = int(begin) if begin else max(0, size - int(end))
            last = min(int(end or size), size - 1) if begin else size - 1
            state.asked.append((first, last))
            data = state.data if state.whole else state.data[first : last + 1]
            if state.spoil and begin:
                state.spoil -= 1
                data = bytes(len(data))
            self.send_response(200 if state.whole else 206)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "application/zip")
            if not state.whole:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.end_headers()
            state.sent += self.wfile.write(data)

        def log_message(self, *words: object) -> None: ...

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    state.file = File("train.zip", len(archive), (Mirror(url=f"http://127.0.0.1:{running.server_port}/train.zip"),))
    yield state
    running.shutdown()
    running.server_close()


@pytest.fixture
def rows(web: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A LLaVA file of one row a picture; the pictures are the source `pictures`."""
    monkeypatch.setitem(SOURCES, "pictures", Source("pictures", "Pictures", (web.file,)))
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    entries = [{"id": str(n), "image": f"{n:012}.png", "conversations": turns} for n in range(COUNT)]
    (tmp_path / "rows.json").write_text(json.dumps(entries))
    return tmp_path / "rows.json"


def made(rows: Path, sample: int = SAMPLE) -> dict:
    folder = rows.parent
    found = training_sets.find(str(rows), folder / "downloads", images="pictures", sample=sample)
    return training_sets.make(found, folder / "rows" / "instruct", sample=sample, seed=3)


def test_only_the_pictures_of_the_sample_are_fetched(web: SimpleNamespace, rows: Path) -> None:
    manifest = made(rows)
    assert manifest["sample"] == f"{SAMPLE} rows of {COUNT:,}, none twice"
    drawn = training_sets.load(rows.parent, "instruct")
    assert len(drawn) == SAMPLE
    for row in drawn:
        assert list(image_zip.open_image(row["images"][0]).getdata()) == list(
            Image.open(io.BytesIO(picture(int(row["id"])))).getdata()
        )
    directory = len(web.data) - web.data.index(b"PK\x01\x02")
    each = max(len(picture(n)) for n in range(50)) + 600
    looked_at = SAMPLE + int(training_sets.SHARE * SAMPLE) + training_sets.MORE
    assert web.sent < directory + ranges.TAIL + looked_at * each < len(web.data) / 3
    outline = rows.parent / "downloads" / "pictures" / ranges.FOLDER / "train.zip"
    assert outline.stat().st_size == len(web.data) and outline.stat().st_blocks * 512 < len(web.data) / 2


def test_what_is_here_is_not_asked_for_again_and_a_larger_sample_goes_on(
    web: SimpleNamespace, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(rows)
    web.asked.clear()
    assert made(rows) == first and web.asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert made(rows) == first and web.asked == []
    with pytest.raises(DataError, match="members of .* are not here, and HF_HUB_OFFLINE is set: run `sbt fetch`"):
        made(rows, 40)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    made(rows, 40)
    assert 0 < len(web.asked) < 40 + 4 + training_sets.MORE


def test_a_member_that_comes_damaged_is_asked_for_once_more_and_then_named(
    web: SimpleNamespace, tmp_path: Path
) -> None:
    path = ranges.outline(web.file, tmp_path)
    web.spoil = 1
    ranges.fetch(path, web.file, ["train2017/000000000007.png"])
    assert image_zip.open_zip(str(path)).read("train2017/000000000007.png") == picture(7)
    web.spoil = 2
    with pytest.raises(DataError, match="train.zip, member 'train2017/000000000900.png': not where the directory"):
        ranges.fetch(path, web.file, ["train2017/000000000900.png"])


def test_a_server_without_ranges_gives_the_whole_zip(web: SimpleNamespace, rows: Path) -> None:
    web.whole = True
    made(rows)
    assert not (rows.parent / "downloads" / "pictures" / ranges.FOLDER).exists()
    assert (rows.parent / "downloads" / "pictures" / "train.zip").read_bytes() == web.data
    web.asked.clear()
    made(rows, 30)
    assert web.asked == [], "a zip that is here is used"


@pytest.mark.parametrize("data", [b"nothing of a zip" * 50, b"<html>log in</html>"])
def test_what_is_no_zip_is_refused(web: SimpleNamespace, tmp_path: Path, data: bytes) -> None:
    web.data = data
    with pytest.raises(DataError, match="no zip file"):
        ranges.outline(web.file, tmp_path)
    assert not list(tmp_path.rglob("*.zip"))


def test_the_directory_of_a_zip64_is_found(
    web: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as packed:
        for number in range(4):
            packed.writestr(f"{number}.png", picture(number))
    web.data = held.getvalue()
    assert ranges._END64 in web.data
    path = ranges.outline(web.file, tmp_path)
    ranges.fetch(path, web.file, ["2.png"])
    assert image_zip.open_zip(str(path)).read("2.png") == picture(2)
