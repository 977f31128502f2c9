"""Plain text for people: tables, durations, a progress bar, the nearest name to a misspelt one."""

import difflib
import reprlib
from collections.abc import Iterable, Sequence

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 3, 5, 5


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known name nearest to a misspelt one, else what is known."""
    known = sorted(known)
    if found := difflib.get_close_matches(name, known, n=1):
        return f"; did you mean {found[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""


def short(value: object, most: int = 80, quotes: bool = True) -> str:
    """A value as a message shows it: at most about `most` characters, however large or deep it is."""
    if isinstance(value, str) and not quotes:
        return value if len(value) <= most else f"{value[: most - 3]}..."
    try:
        found = _SHORT.repr(value)
    except (ValueError, RecursionError):  # an integer of 5,000 digits
        return f"a {type(value).__name__} that is too large to be shown"
    return found if len(found) <= most else f"{found[: most - 3]}..."


def lines(words: object, most: int = 900) -> str:
    """A message as a terminal can show it: control characters and half characters spelled out, long lines cut."""
    shown = ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in str(words).split("\n")]
    return "\n".join(short(line, most, quotes=False) for line in shown)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns padded to their widest cell; columns that hold only numbers are aligned right."""
    cells = [[str(cell) for cell in row] for row in rows]
    columns = list(zip(header, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [bool(cells) and all(_is_number(cell) for cell in column[1:]) for column in columns]
    lines = []
    for row in [list(header), ["-" * width for width in widths], *cells]:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return cell.strip("-+.,0123456789e") in ("", "?")


def duration(seconds: float) -> str:
    """`45 s`, `3:07`, `2:03:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def bar(share: float, width: int = 24) -> str:
    """A bar of text, filled to `share` (0 to 1)."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "░" * (width - full)


def number(value: object) -> str:
    """Four significant digits of a float; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run_names(arm: str, count: int) -> list[str]:
    """Names of `count` runs of an arm, numbered from 1; of a single one, the arm's own."""
    return [arm] if count == 1 else [f"{arm} (run {number})" for number in range(1, count + 1)]
