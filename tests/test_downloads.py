"""Downloads from a server of our own and a stand-in for the Hub: resumed, checked, second places, offline, gated."""

# ruff: noqa: F811 - fixtures are imported
import email.utils
import hashlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import huggingface_hub
import pandas as pd
import pytest
from download_fixtures import DATA, hub, server, sha, zipped  # noqa: F401 - fixtures
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors

from sbt import benchmarks
from sbt.benchmarks.unicorn import TASKS
from sbt.data import conversations, download, image_zip
from sbt.data.download import RECORD, room
from sbt.data.registry import SOURCES, File, Mirror, Source
from sbt.utils import paths
from sbt.utils.errors import DataError, RunError
from sbt.utils.files import read_json


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Registers a source `test` of one file with these places."""

    def make(*places: Mirror, digest: str | None = None, size: int = len(DATA), **more: object) -> None:
        monkeypatch.setitem(SOURCES, "test", Source("test", "A test", (File("a.zip", size, places, digest),), **more))

    return make


HUB = Mirror("me/data", "x/a.zip", "abc")


def fetch(name: str, folder: Path, **how: object) -> dict[str, Path]:
    return download.fetch(SOURCES[name], folder, **how)


def plan(name: str, folder: Path) -> pd.DataFrame:
    return download.plan(SOURCES[name], folder)


def test_a_broken_connection_is_taken_up_again_where_it_ended(server: SimpleNamespace, tmp_path: Path) -> None:
    server.cut = [300_000, 0, 500_000]
    seen = []
    file = download.fetch_url(f"{server.url}/a.zip", tmp_path / "a.zip", lambda *told: seen.append(told))
    assert file.read_bytes() == DATA and seen[-1] == (len(DATA), len(DATA))
    ranges = [asked for _, asked in server.asked]
    assert ranges == [None, "bytes=300000-", "bytes=300000-", "bytes=800000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_fetch_that_gave_up_goes_on_in_the_next_run_unless_the_file_changed(
    server: SimpleNamespace, tmp_path: Path
) -> None:
    for changed in (False, True):
        server.cut, server.asked = [1000] * download.TRIES, []
        with pytest.raises(DataError, match="repeat to go on"):
            download.fetch_url(f"{server.url}/a.zip", tmp_path / "a.zip")
        assert not (tmp_path / "a.zip").exists()
        if changed:
            server.files["/a.zip"], server.version = DATA[::-1], '"2"'
        download.fetch_url(f"{server.url}/a.zip", tmp_path / "a.zip")
        assert (tmp_path / "a.zip").read_bytes() == server.files["/a.zip"]
        assert server.asked[-1][1] == f"bytes={1000 * download.TRIES}-"
        (tmp_path / "a.zip").unlink()


def test_a_second_place_serves_where_the_first_fails_or_lies(
    server: SimpleNamespace, hub: SimpleNamespace, source: Callable[..., None], tmp_path: Path
) -> None:
    source(HUB, Mirror(url=f"{server.url}/a.zip"), digest=f"md5:{hashlib.md5(DATA).hexdigest()}")
    hub.files["me/data", "x/a.zip"] = DATA[:-1]
    (file,) = fetch("test", tmp_path / "d").values()
    assert (
        file == tmp_path / "d" / "test" / "a.zip"
        and file.read_bytes() == DATA
        and hub.asked == [("me/data", "x/a.zip", "abc")]
    )
    assert not (tmp_path / "hub/me/data/x/a.zip").exists(), "a damaged file stays in the cache"
    assert read_json(tmp_path / "d" / "test" / RECORD)["a.zip"]["sha256"] == sha(DATA)
    asked = len(server.asked)
    assert fetch("test", tmp_path / "d") == {"a.zip": file} and len(server.asked) == asked, "fetched twice"


def test_where_no_place_gives_it_each_reason_is_said(
    server: SimpleNamespace, hub: SimpleNamespace, source: Callable[..., None], tmp_path: Path
) -> None:
    source(HUB, Mirror(url=f"{server.url}/none.zip"), page="https://example.org/ask")
    request = httpx.Request("GET", "https://huggingface.co")
    hub.refuse = hub_errors.GatedRepoError("401 long story", response=httpx.Response(401, request=request))
    with pytest.raises(RunError, match=r"(?s)a\.zip cannot be had:\n.*me/data.*gated.*\n.*404 .*example.org/ask"):
        fetch("test", tmp_path / "d")
    assert not list((tmp_path / "d").rglob("*.zip*"))
    source(page="https://example.org/ask", note="by hand only")
    with pytest.raises(RunError, match=r"(?s)by hand only.*by hand, from https://example.org/ask"):
        fetch("test", tmp_path / "d")
    (tmp_path / "d" / "test").mkdir(parents=True, exist_ok=True)
    (tmp_path / "d" / "test" / "a.zip").write_bytes(DATA)
    assert fetch("test", tmp_path / "d") == {"a.zip": tmp_path / "d" / "test" / "a.zip"}


def test_a_file_without_a_published_hash_is_held_to_what_it_was_first(
    hub: SimpleNamespace, source: Callable[..., None], tmp_path: Path
) -> None:
    source(HUB)
    hub.files["me/data", "x/a.zip"], hub.reported["me/data", "x/a.zip"] = DATA, sha(b"other")
    with pytest.raises(RunError, match="its sha256 is .*, but the Hub says"):
        fetch("test", tmp_path)
    hub.reported.clear()
    assert plan("test", tmp_path)["pinned by"].tolist() == [""]
    (file,) = fetch("test", tmp_path).values()
    assert plan("test", tmp_path)[["here", "pinned by"]].values.tolist() == [[True, RECORD]]
    file.unlink()
    hub.files["me/data", "x/a.zip"] = DATA + b"!"
    with pytest.raises(RunError, match=rf"{RECORD} says {sha(DATA)}.*remove its entry"):
        fetch("test", tmp_path)
    hub.files["me/data", "x/a.zip"] = DATA
    assert fetch("test", tmp_path)["a.zip"].read_bytes() == DATA


PAGE = b"\n<!DOCTYPE html><html><body>Log in</body></html>"
LINES = b'{"a": 1}\n' * 100


@pytest.mark.parametrize(
    ("name", "data", "size", "words"),
    [
        ("a.zip", PAGE, len(PAGE), "a web page came instead of the file"),
        ("a.zip", LINES, 900, "it is no zip file"),
    ],
)
def test_what_cannot_be_the_file_is_refused_before_its_hash_is_recorded(
    hub: SimpleNamespace, source: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str,
    data: bytes, size: int, words: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(SOURCES, "test", Source("test", "A test", (File(name, size, (HUB,)),)))
    hub.files["me/data", "x/a.zip"] = data
    with pytest.raises(RunError, match=words):
        fetch("test", tmp_path)
    assert not (tmp_path / "test" / RECORD).exists() and not (tmp_path / "hub/me/data/x/a.zip").exists()
    good = zipped(LINES) if name == "a.zip" else LINES
    monkeypatch.setitem(SOURCES, "test", Source("test", "A test", (File(name, len(good) + 100, (HUB,)),)))
    hub.files["me/data", "x/a.zip"] = good
    assert fetch("test", tmp_path)[name].read_bytes() == good


@pytest.mark.parametrize(("data", "size"), [(LINES, 100), (LINES[:500], 900)])
def test_a_plain_address_is_held_to_the_expected_size_and_the_hub_to_its_own(tmp_path: Path, data: bytes, size: int):
    (tmp_path / "a.json").write_bytes(data)
    words = f"it has {len(data)} bytes, but about {size} were expected"
    assert words in download._implausible(tmp_path / "a.json", File("a.json", size, ()))
    assert download._implausible(tmp_path / "a.json", File("a.json", size, ()), sized=False) == ""


def test_a_servers_web_page_is_no_file(server: SimpleNamespace, tmp_path: Path) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(DataError, match="the server sends a web page instead of the file"):
        download.fetch_url(f"{server.url}/a.zip", tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_a_busy_server_is_asked_again_when_it_says(server: SimpleNamespace, tmp_path: Path) -> None:
    soon = email.utils.formatdate(time.time() + 100, usegmt=True)
    server.busy = [(429, "7"), (503, soon), (503, None)]
    download.fetch_url(f"{server.url}/a.zip", tmp_path / "a.zip")
    assert server.waited[0] == 7 and 80 < server.waited[1] <= 100 and server.waited[2] == 3
    server.busy = [(429, "86400")]
    with pytest.raises(DataError, match="the server answers 429 .*: repeat in 86400 seconds"):
        download.fetch_url(f"{server.url}/a.zip", tmp_path / "b.zip")
    assert len(server.waited) == 3


def test_a_fault_of_the_hubs_transport_is_one_clear_line(
    hub: SimpleNamespace, source: Callable[..., None], tmp_path: Path
) -> None:
    source(HUB)
    hub.refuse = httpx.RemoteProtocolError("Server disconnected\nwithout a response")
    with pytest.raises(RunError, match=r"the connection failed \(RemoteProtocolError: Server disconnected\): repeat"):
        fetch("test", tmp_path)
    answer = httpx.Response(429, headers={"Retry-After": "30"}, request=httpx.Request("GET", "https://huggingface.co"))
    hub.refuse = hub_errors.HfHubHTTPError("429 Client Error", response=answer)
    with pytest.raises(RunError, match=r"the Hub is busy \(429\): repeat after 30 seconds"):
        fetch("test", tmp_path)


def test_size_is_shown_and_disk_checked_before_anything_is_asked_for(
    hub: SimpleNamespace, source: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source(HUB, size=30 * 10**9)
    assert plan("test", tmp_path)[["file", "GB", "here"]].values.tolist() == [["a.zip", 30.0, False]]
    monkeypatch.setattr(download.env, "free_gb", lambda folder: 29.0)
    with pytest.raises(RunError, match=r"30\.6 GB are needed \(a\.zip 30\.0 GB\), 29\.0 GB are free"):
        fetch("test", tmp_path)
    assert not hub.asked
    monkeypatch.setattr(download.env, "free_gb", lambda folder: 99.0)
    hub.refuse = OSError(28, "No space left on device")
    with pytest.raises(RunError, match="the disk is full"):
        fetch("test", tmp_path)


def test_every_disk_is_checked_with_what_comes_to_it(
    hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    big, other = 30 * 10**9, 20 * 10**9
    both = (File("a.zip", big, (HUB,)), File("b.zip", other, (Mirror(url="http://127.0.0.1:1/b.zip"),)))
    monkeypatch.setitem(SOURCES, "test", Source("test", "A test", both))
    cache, folder = tmp_path / "cache", tmp_path / "d"
    monkeypatch.setattr(download, "OFF", 1.0)  # the files are small, their sizes claimed
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(download.env, "free_gb", lambda at: {cache: 40.0, folder: 25.0}[at])
    hub.files["me/data", "x/a.zip"] = DATA
    monkeypatch.setattr(download, "fetch_url", lambda url, to, told: to.write_bytes(DATA) and to)
    with pytest.raises(RunError, match=r"cache: 51\.0 GB are needed \(a\.zip 30\.0 GB, b\.zip 20\.0 GB\), 40\.0"):
        fetch("test", folder)  # one disk: both
    assert not hub.asked
    monkeypatch.setattr(download, "_filesystem", lambda at: hash(at))
    assert [(one.folder, round(one.need, 1)) for one in room([SOURCES["test"]] * 2, folder)] == [
        (cache, 30.6),
        (folder, 20.4),
    ]
    assert len(fetch("test", folder)) == 2 and room([SOURCES["test"]], folder) == []
    (folder / "test" / RECORD).unlink()
    (folder / "test" / "b.zip").unlink()
    monkeypatch.setattr(download.env, "free_gb", lambda at: {cache: 25.0, folder: 40.0}[at])
    with pytest.raises(RunError, match=r"cache: 30\.6 GB are needed \(a\.zip 30\.0 GB\), 25\.0 GB are free"):
        fetch("test", folder)


def test_downloads_may_lie_apart_from_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBT_OUTPUTS", str(tmp_path / "drive"))
    assert paths.downloads() == tmp_path / "drive" / "downloads"
    assert paths.recorded(paths.downloads() / "a.zip") == "downloads/a.zip"
    inside = image_zip.ImageFinder([]).kept(f"{paths.downloads()}/a.zip::b.jpg")
    assert inside == "downloads/a.zip::b.jpg" and image_zip.full(inside) == f"{tmp_path}/drive/downloads/a.zip::b.jpg"
    for apart in (tmp_path / "disk", paths.root() / "disk"):  # what `shown` shortens would be read below outputs
        monkeypatch.setenv("SBT_DOWNLOADS", str(apart))
        assert paths.downloads() == apart and paths.recorded(apart / "a.zip") == f"{apart}/a.zip"
        kept = image_zip.ImageFinder([]).kept(f"{apart}/a.zip::b.jpg")
        assert kept == image_zip.full(kept) == f"{apart}/a.zip::b.jpg"


def test_the_hubs_bars_become_progress(
    hub: SimpleNamespace, source: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    source(HUB)
    hub.files["me/data", "x/a.zip"] = DATA
    seen = []
    fetch("test", tmp_path, progress=lambda *told: seen.append(told))
    assert seen == [("a.zip", 1000, len(DATA)), ("a.zip", len(DATA), len(DATA))]
    assert capfd.readouterr() == ("", "")


def test_what_the_hubs_cache_has_takes_no_more_disk(
    hub: SimpleNamespace, source: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source(HUB, size=30 * 10**9)
    hub.files["me/data", "x/a.zip"] = DATA
    monkeypatch.setattr(download, "OFF", 1.0)
    monkeypatch.setattr(download.env, "free_gb", lambda folder: 1.0)
    with pytest.raises(RunError, match="30.6 GB are needed"):
        fetch("test", tmp_path)
    kept = tmp_path / "cache" / "datasets--me--data" / "snapshots" / "abc" / "x" / "a.zip"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(DATA)
    look = partial(huggingface_hub.try_to_load_from_cache, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
    assert plan("test", tmp_path)["here"].tolist() == [True]
    assert fetch("test", tmp_path)["a.zip"].read_bytes() == DATA


def test_offline_asks_nobody_but_the_cache(
    server: SimpleNamespace,
    hub: SimpleNamespace,
    source: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: pytest.fail("the Hub was asked"))
    source(HUB, Mirror(url=f"{server.url}/a.zip"))
    with pytest.raises(RunError, match=r"(?s)HF_HUB_OFFLINE is set.*the cache does not hold it.*not asked for"):
        fetch("test", tmp_path)
    assert not server.asked
    hub.files["me/data", "x/a.zip"] = DATA
    assert fetch("test", tmp_path)["a.zip"].read_bytes() == DATA


def test_the_registry_holds_together() -> None:
    found = [files.wanted("hub", "hub", TASKS) for files in benchmarks.sources().values()]
    other = {source.name: source for sources in found for source in sources}
    assert len(other) >= 9 and not set(SOURCES) & set(other)
    for name, one in (SOURCES | other).items():
        assert name == one.name and one.title and one.files, name
        for file in one.files:
            assert file.rows in ("", *conversations.FORMATS)
            held = file.size or not file.mirrors or any(mirror.repo for mirror in file.mirrors)  # by the Hub
            read = file.name.endswith((".zip", ".tsv"))  # what is none, or lacks its columns, is refused by its reader
            assert held or read, f"{file.name}: any file would pass"
            assert file.mirrors or (one.page and one.note), f"{name}: nobody knows where {file.name} is"
            kind, _, value = (file.digest or "sha256:" + "0" * 64).partition(":")
            assert len(value) == {"md5": 32, "sha256": 64}[kind] and int(value, 16) >= 0
            for mirror in file.mirrors:
                assert bool(mirror.repo and mirror.path) != bool(mirror.url)
                assert mirror.revision is None or len(mirror.revision) == 40
                assert Path(mirror.path or mirror.url).suffix == Path(file.name).suffix


def test_two_sources_may_have_files_of_one_name(
    hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = zipped(DATA)
    for name, data in (("one", DATA), ("two", other)):
        hub.files[f"me/{name}", "images.zip"] = data
        places = (Mirror(f"me/{name}", "images.zip", "abc"),)
        monkeypatch.setitem(SOURCES, name, Source(name, name, (File("images.zip", len(data), places),)))
    assert fetch("one", tmp_path)["images.zip"].read_bytes() == DATA
    assert fetch("two", tmp_path)["images.zip"].read_bytes() == other
