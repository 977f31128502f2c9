"""A loopback server that answers as huggingface.co and the publishers' own web servers do, from one folder.

with FakeHub(folder) as hub: ...   # hub.url for HF_ENDPOINT; hub.asked lists "METHOD /path"

`folder/models/OWNER/NAME/FILES` and `folder/datasets/OWNER/NAME/FILES` are repositories, `folder/web/HOST/PATH` is
what a publisher serves at http(s)://HOST/PATH; here at hub.url/web/HOST/PATH.
"""

import hashlib
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGE = (".bin", ".safetensors", ".parquet", ".zip", ".model", ".jsonl")  # what .gitattributes gives to git LFS
LOGIN = b"<!DOCTYPE html><html><body>Log in to this network first</body></html>"
PIECE = 2**16


class FakeHub:
    """Serves what `huggingface_hub`, `transformers` and `urllib` ask for, and what goes wrong where `faults` say so.

    `faults["OWNER/NAME"]`, or of a web address's beginning `HOST/PATH`, or "" for all, is one of: a status (429, 503),
    "cut" (the connection is closed at once), "half" (in the middle of a file), "login" (a page of HTML with 200),
    "gated", "removed"; or a list of these, of which each answer takes one, None for a good one.
    `token`: what opens gated repositories, empty for none.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.asked, self.token = root, [], ""
        self.faults: dict[str, object] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.large = f"http://localhost:{self.server.server_port}"  # another host to the clients

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fault(self, name: str) -> object:
        """What goes wrong with a repository or an address this time."""
        for start, fault in self.faults.items():
            if name.startswith(start):
                return (fault.pop(0) if fault else None) if isinstance(fault, list) else fault
        return None


def commit_of(repo: str) -> str:
    """The commit that the branch main of a repository stands at."""
    return hashlib.sha1(repo.encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *words: object) -> None:
        """Nothing on the screen."""

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.path, _, self.query = self.path.partition("?")
        self.path = urllib.parse.unquote(self.path)
        self.hub.asked.append(f"{self.command} {self.path}")
        parts = self.path.strip("/").split("/")
        if parts[0] == "web":
            self._web("/".join(parts[1:]))
        elif parts[0] == "lfs":
            self.half = self.hub.faults.get("/".join(parts[2:4])) == "half"
            self._content(self.hub.root.joinpath(*parts[1:]))
        elif parts[:2] in (["api", "models"], ["api", "datasets"]) and len(parts) > 3:
            self._api(parts[1], "/".join(parts[2:4]), parts[4:])
        elif parts[0] in ("api", "datasets"):
            self._file("datasets", parts[1:]) if parts[0] == "datasets" else self._refuse(404, "EntryNotFound")
        else:
            self._file("models", parts)

    do_HEAD = do_POST = do_GET

    def _web(self, address: str) -> None:
        if self._fails(self.hub.fault(address)):
            return
        file = self.hub.root / "web" / address
        self._content(file) if file.is_file() else self._send(404)

    def _api(self, kind: str, repo: str, rest: list[str]) -> None:
        folder, fault = self.hub.root / kind / repo, self.hub.fault(repo)
        gated = fault == "gated"
        if self._fails(None if gated and rest[:1] != ["auth-check"] else fault):
            return
        if not folder.is_dir():
            self._refuse(401, "RepoNotFound")
        elif rest[:1] == ["auth-check"]:
            self._json({})
        elif rest[:1] == ["paths-info"]:
            self._paths(folder)
        elif rest[:1] == ["tree"]:
            self._tree(folder, "/".join(rest[2:]))
        elif rest and rest[:1] != ["revision"]:
            self._refuse(404, "EntryNotFound")
        elif commit := self._commit(repo, "/".join(rest[1:])):
            names = [{"rfilename": str(file.relative_to(folder))} for file in _files(folder)]
            self._json({"_id": commit[:24], "id": repo, "sha": commit, "private": False, "disabled": False,
                        "gated": "manual" if gated else False, "tags": [], "downloads": 0, "likes": 0,
                        "createdAt": "2024-01-01T00:00:00.000Z", "lastModified": "2024-01-01T00:00:00.000Z",
                        "siblings": names})  # fmt: skip
        else:
            self._refuse(404, "RevisionNotFound")

    def _paths(self, folder: Path) -> None:
        form = json.loads(self.body) if self.body[:1] == b"{" else urllib.parse.parse_qs(self.body.decode())
        found = []
        for name in form["paths"]:
            if (folder / name).is_file():
                found.append(_entry(folder, folder / name))
            elif (folder / name).is_dir():
                found.append({"type": "directory", "path": name, "oid": "b" * 40, "size": 0})
        self._json(found)

    def _tree(self, folder: Path, below: str) -> None:
        at, deep = folder / below, "recursive=true" in self.query.lower()
        if not at.is_dir():
            self._refuse(404, "EntryNotFound")
            return
        found = sorted(at.rglob("*") if deep else at.iterdir())
        self._json([_entry(folder, one) if one.is_file() else
                    {"type": "directory", "path": str(one.relative_to(folder)), "oid": "b" * 40, "size": 0}
                    for one in found])  # fmt: skip

    def _file(self, kind: str, parts: list[str]) -> None:
        repo, rest = "/".join(parts[:2]), parts[2:]
        folder = self.hub.root / kind / repo
        if self._fails(self.hub.fault(repo)):
            return
        if not folder.is_dir():
            self._refuse(401, "RepoNotFound")
        elif rest[:1] != ["resolve"] or not (commit := self._commit(repo, rest[1])):
            self._refuse(404, "RevisionNotFound")
        elif not (file := folder.joinpath(*rest[2:])).is_file():
            self._refuse(404, "EntryNotFound", X_Repo_Commit=commit)
        elif file.name.endswith(LARGE):  # the Hub sends to another host for what git LFS keeps
            size, digest = file.stat().st_size, f'"{hashlib.sha256(file.read_bytes()).hexdigest()}"'
            there = f"{self.hub.large}/lfs/{urllib.parse.quote(str(file.relative_to(self.hub.root)))}"
            self._send(302, Location=there, X_Linked_Size=str(size), X_Linked_Etag=digest, X_Repo_Commit=commit)
        else:
            self._content(file, X_Repo_Commit=commit)

    def _commit(self, repo: str, revision: str) -> str:
        """The commit of a branch or of a commit; empty where the repository has no such revision."""
        return commit_of(repo) if revision in ("", "main") else revision if len(revision) == 40 else ""

    def _content(self, file: Path, **headers: str) -> None:
        data = file.read_bytes()
        headers |= {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        headers["Content-Type"] = "text/html" if file.suffix == ".html" else "application/octet-stream"
        asked = self.headers.get("Range")
        if not asked:
            self._send(200, data, **headers)
            return
        start, _, end = asked.removeprefix("bytes=").partition("-")
        if not start:  # so many bytes from the end, or all where there are fewer
            start, end = max(0, len(data) - int(end)), ""
        first, last = int(start), min(int(end or len(data)), len(data) - 1)
        if first > last:
            self._send(416)
        else:
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            self._send(206, data[first : last + 1], **headers)

    def _fails(self, fault: object) -> bool:
        """Answer with what goes wrong; False where nothing does."""
        self.half = fault == "half"
        if fault == "cut":
            self.close_connection = True
        elif fault == "login":
            self._send(200, LOGIN, Content_Type="text/html")
        elif fault == "removed":
            self._refuse(404 if self.path.startswith("/web") else 401, "RepoNotFound")
        elif fault == "gated":
            given = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if given and given == self.hub.token:
                return False
            self._refuse(403 if given else 401, "GatedRepo")
        elif isinstance(fault, int):
            self._send(fault, Retry_After="0")
        else:
            return False
        return True

    def _refuse(self, status: int, code: str, **headers: str) -> None:
        words = json.dumps({"error": f"{code} at the fake hub"}).encode()
        self._send(status, words, X_Error_Code=code, X_Error_Message=f"{code} at the fake hub", **headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), Content_Type="application/json")

    def _send(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if getattr(self, "half", False) and data:
            data, self.close_connection = data[: len(data) // 2], True
        self.wfile.write(data)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _entry(folder: Path, file: Path) -> dict:
    data = file.read_bytes()
    entry = {"type": "file", "path": str(file.relative_to(folder)), "size": len(data),
             "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}  # fmt: skip
    if file.name.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry
