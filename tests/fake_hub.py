"""A loopback server that answers the Hub's clients as huggingface.co does, for dataset repositories of a folder.

with FakeHub(folder) as hub: ...   # folder/OWNER/NAME/FILES; hub.asked lists "METHOD /path"; hub.fault = 429
"""

import hashlib
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FakeHub:
    """Serves what the real `huggingface_hub` client asks of a dataset repository: file heads, files, their digests.

    `fault` is what it does instead: a status (429, 503), or "cut", which closes the connection.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.asked, self.fault = root, [], None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None:
                """Nothing on the screen."""

            def do_GET(self) -> None:
                self._answer()

            do_HEAD = do_POST = do_GET

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
                hub.asked.append(f"{self.command} {path}")
                if hub.fault == "cut":
                    self.close_connection = True
                elif hub.fault:
                    self._send(hub.fault)
                elif path.startswith("/api/datasets/"):
                    owner, name = path.split("/")[3:5]
                    self._send(200, json.dumps(self._infos(hub.root / owner / name, body)).encode())
                else:
                    self._file(path)

            def _infos(self, repo: Path, body: bytes) -> list[dict]:
                asked = (
                    json.loads(body)["paths"] if body[:1] == b"{" else urllib.parse.parse_qs(body.decode())["paths"]
                )
                content = {name: (repo / name).read_bytes() for name in asked if (repo / name).is_file()}
                return [
                    {"type": "file", "path": name, "oid": "b" * 40, "size": len(data),
                     "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
                    for name, data in content.items()
                ]  # fmt: skip

            def _file(self, path: str) -> None:
                _, kind, owner, name, verb, revision, *rest = path.split("/") + [""] * 4
                file = hub.root / owner / name / "/".join(filter(None, rest))
                if (kind, verb) != ("datasets", "resolve") or not file.is_file():
                    code = "EntryNotFound" if (hub.root / owner / name).is_dir() else "RepoNotFound"
                    return self._send(404, X_Error_Code=code, X_Error_Message=f"{code} at the fake hub")
                commit = revision if len(revision) == 40 else "a" * 40
                data = file.read_bytes()
                return self._send(200, data, ETag=f'"{hashlib.sha256(data).hexdigest()}"', X_Repo_Commit=commit)

            def _send(self, status: int, data: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), "Retry-After": "0", **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()
