"""Results kept item by item as they come, one JSON line each, so that a killed evaluation goes on where it stood."""

import json
from pathlib import Path
from types import TracebackType

from sbt.utils import paths
from sbt.utils.errors import DataError
from sbt.utils.files import writing


class ItemCache:
    """Values by item id; an entry counts only under the `key` (hash of prompt and model) it was made with.

    A last line cut off by a kill is dropped and made again; a broken line elsewhere is a DataError. Use as a context.
    """

    def __init__(self, file: Path) -> None:
        self.file = Path(file)
        self.entries: dict[tuple[str, str], object] = {}
        with writing(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._read()
            self._out = open(self.file, "a", encoding="utf-8")  # noqa: SIM115 - closed by __exit__

    def get(self, name: str, key: str) -> object | None:
        """The value of an item, None if it was not made with this key."""
        return self.entries.get((name, key))

    def add(self, values: dict[str, tuple[str, object]]) -> None:
        """Write `{id: (key, value)}` for the items that are new, and flush."""
        with writing(self.file):
            for name, (key, value) in values.items():
                if (name, key) not in self.entries:
                    self.entries[name, key] = value
                    self._out.write(json.dumps({"id": name, "key": key, "value": value}, ensure_ascii=False) + "\n")
            self._out.flush()

    def __enter__(self) -> "ItemCache":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._out.close()

    def _read(self) -> None:
        if not self.file.exists():
            return
        data = self.file.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with open(self.file, "r+b") as file:
                file.truncate(whole)
        for number, line in enumerate(data[:whole].splitlines(), start=1):
            try:
                entry = json.loads(line)
                self.entries[entry["id"], entry["key"]] = entry["value"]
            except (ValueError, KeyError, TypeError):
                shown = paths.shown(self.file)
                raise DataError(
                    f"{shown}:{number}: damaged line. Delete the file to compute its items again"
                ) from None
