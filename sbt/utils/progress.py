"""What changes in a notebook while it runs: the progress of a long loop, and the answer to the notebook's question.

Progress is one line a cell that updates itself, and a file that `sbt run` shows. A loop with numbers (a loss) leaves a
summary without bar and time. The line of another loop makes room for the next one; a published notebook drops it.
"""

import json
import sys
import time
from pathlib import Path

from sbt.utils import files, text

SECONDS = 0.5  # between two updates
MARK = {"sbt": "progress"}  # metadata of outputs that a published notebook does not keep


def _display(words: str, metadata: dict, handle: object = None) -> object:
    """Show one line in a notebook and return its handle; nothing outside of one."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None or not hasattr(get_ipython(), "kernel"):
        return None
    data = {"text/plain": words} | ({"text/markdown": words} if words.startswith("**") else {})
    if handle is None:
        return display(data, raw=True, metadata=metadata, display_id=True)
    handle.update(data, raw=True, metadata=metadata)
    return handle


def _cell() -> int | None:
    """The number of the cell that runs; None outside of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "execution_count", None)


def note(words: str) -> None:
    """A remark for the person at the screen; a published notebook does not keep it."""
    if _display(words, MARK) is None:
        print(words, file=sys.stderr)


class Answer:
    """Room in a notebook, where it begins, for the answer that is known when it ends."""

    def __init__(self) -> None:
        self._handle = _display(" ", MARK)

    def write(self, words: str) -> None:
        """Put the answer there, in bold; it replaces an earlier one. Outside of a notebook it is printed."""
        if _display(f"**{words}**", {}, self._handle) is None:
            print(words)


class Progress:
    """Progress of one loop after another, written to `file` (JSON: done, total, elapsed, remaining, numbers)."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._handle: object = None
        self._cell: int | None = None
        self._started = self._shown = 0.0
        self._first = 0
        self._last: tuple = ()

    def update(self, done: int, total: int, **numbers: object) -> None:
        """Show `done` of `total`; at most two updates a second, the first and the last ones always."""
        now = time.monotonic()
        if (done, total, numbers) == self._last:
            return
        if not self._last or done < self._last[0] or total != self._last[1] or self._last[0] >= self._last[1]:
            if (cell := _cell()) != self._cell:
                self._handle, self._cell = None, cell
            self._started, self._first, self._shown = now, done, 0.0
        self._last = (done, total, numbers)
        if done < total and now - self._shown < SECONDS:
            return
        self._shown = now
        elapsed = now - self._started
        remaining = elapsed / (done - self._first) * (total - done) if done > self._first else None
        state = {"done": done, "total": total, "elapsed": elapsed, "remaining": remaining, "numbers": numbers}
        files.write_text(self.file, json.dumps(state, default=str))
        tail = "".join(f" · {name} {text.number(value)}" for name, value in numbers.items())
        if done >= total:
            handle = _display(f"{done} of {total}{tail}", {} if tail else MARK, self._handle)
            self._handle = None if tail else handle
            return
        left = f" · {text.duration(remaining)} left" if remaining is not None else ""
        words = f"{text.bar(done / max(total, 1))} {done} of {total}{left}{tail}"
        self._handle = _display(words, MARK, self._handle)
