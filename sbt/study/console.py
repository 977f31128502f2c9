"""Status lines of `sbt run`: live on a terminal; elsewhere a line when a step begins and one when it ends."""

import contextlib
import shutil
import sys
import time

from sbt.study import plan
from sbt.utils import files, text
from sbt.utils.errors import DataError

SECONDS = 0.5  # between two updates of a terminal


class StatusLines:
    """One status line for each running step. `waiting`: seconds that the steps not yet begun will take."""

    def __init__(self, titles: dict[str, str], jobs: int) -> None:
        self.titles, self.jobs = titles, jobs
        self.live = sys.stdout.isatty()
        self.waiting = 0.0
        self._began: dict[str, float] = {}
        self._steps: dict[str, plan.Step] = {}
        self._lines, self._drawn = 0, 0.0

    def say(self, name: str, words: str) -> None:
        """A line of a step that stays."""
        self._wipe()
        print(f"{self.titles[name]} {words}", flush=True)

    def begin(self, step: plan.Step) -> None:
        """A step begins."""
        self._began[step.name], self._steps[step.name] = time.monotonic(), step
        if not self.live:
            self.say(step.name, f"begins, about {text.duration(step.estimate.minutes * 60)}")

    def end(self, name: str, outcome: str) -> None:
        """A step ended: `done`, `failed` or `interrupted`."""
        took = text.duration(time.monotonic() - self._began.pop(name))
        del self._steps[name]
        left = self._left()
        self.say(name, f"{outcome} in {took}" + (f", about {text.duration(left)} left" if left >= 1 else ""))

    def draw(self) -> None:
        """Draw the live lines anew, at most twice a second."""
        if not self.live or time.monotonic() - self._drawn < SECONDS:
            return
        self._wipe()
        width = shutil.get_terminal_size().columns - 1
        lines = [f"{self.titles[name]} {self._now(name)}"[:width] for name in self._steps]
        if (left := self._left()) >= 1 and len(lines) > 1:
            lines.append(f"about {text.duration(left)} left in all"[:width])
        print("".join(f"{line}\n" for line in lines), end="", flush=True)
        self._lines, self._drawn = len(lines), time.monotonic()

    def _wipe(self) -> None:
        if self._lines:
            print(f"\033[{self._lines}F\033[J", end="")
        self._lines = 0

    def _now(self, name: str) -> str:
        elapsed, loop, live = time.monotonic() - self._began[name], self._loop(name), ""
        if loop:
            numbers = "".join(f" {key} {text.number(value)}" for key, value in loop["numbers"].items())
            live = f" · {text.bar(loop['done'] / max(loop['total'], 1), 12)} {loop['done']}/{loop['total']}{numbers}"
        left = self._left() if len(self._steps) == 1 else self._rest(name)
        words = "left in all" if len(self._steps) == 1 else "left"
        return text.duration(elapsed) + (f", about {text.duration(left)} {words}" if left >= 1 else "") + live

    def _loop(self, name: str) -> dict:
        """The loop a step's notebook is in; empty before the first one."""
        with contextlib.suppress(DataError):
            return files.read_json(self._steps[name].folder / "progress.json")
        return {}

    def _rest(self, name: str) -> float:
        """Seconds a step at work still takes: by its estimate, or longer where its loop says so."""
        expected = self._steps[name].estimate.minutes * 60 - (time.monotonic() - self._began[name])
        return max(expected, self._loop(name).get("remaining") or 0.0, 0.0)

    def _left(self) -> float:
        rests = [self._rest(name) for name in self._steps]
        return max([(self.waiting + sum(rests)) / self.jobs, *rests])
