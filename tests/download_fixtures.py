"""Fixtures for downloads: a server of our own and a stand-in for the Hub. Import the names a test module uses."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors

from sbt.data import download


def zipped(content: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        packed.writestr(zipfile.ZipInfo("content"), content)
    return data.getvalue()


DATA = zipped(bytes(range(256)) * 8000)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """`url`, `files` by path, `asked` (path, Range), `cut`: bytes after which answers break off, one by one.

    `busy`: (status, Retry-After) of answers before the file is given, `waited`: seconds slept, `kind`: Content-Type.
    """
    state = SimpleNamespace(files={"/a.zip": DATA}, asked=[], cut=[], version='"1"', busy=[], kind="application/zip")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Range")))
            if state.busy:
                code, wait = state.busy.pop(0)
                self.send_response(code)
                self.send_header("Content-Length", "0")
                if wait is not None:
                    self.send_header("Retry-After", wait)
                self.end_headers()
                return
            data = state.files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            start = 0
            if (asked := self.headers.get("Range")) and self.headers.get("If-Range", state.version) == state.version:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", state.version)
            self.send_header("Content-Type", state.kind)
            self.end_headers()
            self.wfile.write(data[start : start + state.cut.pop(0)] if state.cut else data[start:])

        def log_message(self, *words: object) -> None: ...

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    state.waited = []
    monkeypatch.setattr(download.time, "sleep", state.waited.append)
    monkeypatch.setenv("no_proxy", "*")
    state.url = f"http://127.0.0.1:{running.server_port}"
    yield state
    running.shutdown()
    running.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Hub of files in a folder: `files` by (repo, path), `reported` hashes, `asked`."""
    state = SimpleNamespace(files={}, reported={}, asked=[], refuse=None)

    def download(repo: str, path: str, *, repo_type: str, revision: str | None, tqdm_class: type | None) -> str:
        state.asked.append((repo, path, revision))
        if state.refuse:
            raise state.refuse
        if (repo, path) not in state.files:
            raise hub_errors.LocalEntryNotFoundError("not there")
        file = tmp_path / "hub" / repo / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if told := state.reported.get((repo, path)):  # the Hub's cache keeps a link, and the file by its hash
            file.symlink_to(tmp_path / told)
        file.write_bytes(state.files[repo, path])
        if tqdm_class:
            with tqdm_class(unit="B", unit_scale=True, total=len(DATA), initial=0, desc=path) as bar:
                bar.update(1000)
                bar.update(len(DATA) - 1000)
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return state
