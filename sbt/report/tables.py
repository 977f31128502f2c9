"""Tables of the report: metric rows as people read them.

tables.wide(rows, tables.columns(specs)["Vision"])   arm x benchmark, each cell "value [low, high]"
tables.grid(frame, ["subset", "protocol"])   any metric rows in such cells, a column an arm
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML

Column = tuple[str, str, str]  # benchmark, subset, metric
WIDTH = 155  # characters of a table that a page holds side by side
HOLM = "p, corrected by Holm"
NOT_BOTH = "base and another arm were not both scored"
LOOK = (
    "<style>table.sentences td, table.sentences th {text-align: left !important; vertical-align: top}"
    " table.numbers td, table.numbers tbody th {white-space: nowrap}"
    " caption {text-align: left; font-weight: bold; padding: 4px 0}</style>"
)


def columns(specs: Mapping[str, Any]) -> dict[str, dict[Column, str]]:
    """What a reader compares first: title of a table -> (benchmark, subset, metric) -> title of the column."""
    tables: dict[str, dict[Column, str]] = {}
    for spec in sorted(specs.values(), key=lambda spec: (spec.kind, spec.notebook)):
        for metric in spec.headline:
            tables.setdefault(spec.table, {})[spec.name, metric.subset, metric.metric] = metric.title
    return tables


def cell(row: Mapping, digits: int | None = None) -> str:
    """A value with its interval; None: as many digits as an interval of this size can hold."""
    if digits is None:
        digits = 2 if abs(row["high"]) < 10 else 1 if abs(row["high"]) < 100 else 0
    return f"{row['value']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def grid(
    rows: pd.DataFrame, index: str | list[str], columns: str | list[str] = "arm", digits: int | None = None
) -> pd.DataFrame:
    """Metric rows as a table of "value [low, high]", in their own order; a dash where there is none; empty of none."""
    if not len(rows):  # as of relative drops, where the clean score is 0
        return pd.DataFrame()
    shown = rows.assign(cell=[cell(row, digits) for row in rows.to_dict("records")])
    return shown.pivot_table("cell", index, columns, aggfunc="first", sort=False).fillna("–")


def wide(rows: Iterable[dict], titles: Mapping[Column, str]) -> pd.DataFrame:
    """Arms as rows, the metrics of `titles` as columns; a dash where an arm was not scored."""
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        title = titles.get((row["benchmark"], row["subset"], row["metric"]))
        if title and row["low"] is not None:
            cells.setdefault(row["arm"], {}).setdefault(title, cell(row))  # of two protocols the first
    order = [title for title in titles.values() if any(title in of_arm for of_arm in cells.values())]
    return pd.DataFrame(cells).T.reindex(columns=order).fillna("–").rename_axis("arm")


def page(frame: pd.DataFrame, title: str = "", index: bool = True) -> HTML:
    """A table for a page that hides its code, below its title; one of sentences (no index) stands to the left.

    Columns that find no room beside the others stand below them, with the same rows.
    """
    caption, html = f"<caption>{title}</caption>" if title else "", ""
    for part in _side_by_side(frame) if index else [frame]:
        table = part.to_html(border=0, index=index, na_rep="–", classes="numbers" if index else "sentences")
        html += table.replace(">", ">" + ("" if html else caption), 1)
    html = re.sub(r">\n\s*<", "><", html)  # a committed notebook keeps each line with its own indent
    return HTML(LOOK + html.replace("</tr>", "</tr>\n"))


def _side_by_side(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The columns in groups that a page holds, the row labels before each; a heading may break between words."""
    labels = frame.index.to_frame().astype(str)
    room = WIDTH - sum(labels[name].str.len().max() + 3 for name in labels) if len(frame) else WIDTH
    groups, used = [[]], 0
    for place, name in enumerate(frame.columns):
        words = " ".join(map(str, name if isinstance(name, tuple) else [name])).split()
        width = 3 + max(map(len, [*words, *map(str, frame.iloc[:, place])]), default=0)
        if groups[-1] and used + width > room:
            groups, used = [*groups, []], 0
        groups[-1].append(place)
        used += width
    return [frame.iloc[:, places] for places in groups]


def with_guessing(rows: Iterable[dict], specs: Mapping[str, Any], title: str) -> pd.DataFrame:
    """One of the report's tables with what guessing gives; empty where no arm was scored.

    Arms are its rows, or its columns where the metrics are more than the arms.
    """
    table = wide(rows, columns(specs).get(title, {}))
    if not len(table):
        return table
    chance = {metric.title: metric.chance for spec in specs.values() for metric in spec.headline}
    known = {name: "–" if chance.get(name) is None else f"{chance[name]:.2f}" for name in table.columns}
    table = pd.concat([table, pd.DataFrame([known], index=["guessing"])]).rename_axis(None)
    return table.T if len(table.columns) > len(table) else table


def as_text(rows: Iterable[dict], specs: Mapping[str, Any], width: int = 100) -> str:
    """The first of the report's tables as plain text: its title, then as many of its columns as a terminal holds."""
    rows = list(rows)
    for title, titles in columns(specs).items():
        table = wide(rows, titles)
        if len(table):
            for count in range(len(table.columns), 0, -1):
                lines = table[table.columns[:count]].to_string().splitlines()
                if max(map(len, lines)) <= width:
                    break
            return "\n".join([title, *(line.rstrip() for line in lines)]) + "\n"
    return ""


def signed(row: Mapping) -> str:
    """A difference with its interval: "+0.210 [+0.150, +0.270]".

    Three decimals, and more, up to six, where an end of the interval would read 0 and is not.
    """
    ends = [end for end in (row["low"], row["high"]) if abs(end) > 5e-7]
    digits = next((n for n in range(3, 6) if all(round(end, n) for end in ends)), 6)
    return "{:+z.{n}f} [{:+z.{n}f}, {:+z.{n}f}]".format(row["delta"], row["low"], row["high"], n=digits)


def p_value(p: float | None) -> str:
    """A p as a table shows it; "too few runs" for None or NaN."""
    if p is None or p != p:
        return "too few runs"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def compared(deltas: pd.DataFrame, columns: Sequence[str] = ("p", HOLM, "n", "test")) -> HTML:
    """Paired differences as people read them: by part, benchmark and arm the difference and the `columns`."""
    if not len(deltas):
        return HTML(NOT_BOTH)
    shown = deltas.assign(difference=[signed(row) for row in deltas.to_dict("records")])
    shown = shown.rename(columns={"p_holm": HOLM})
    for name in {"p", HOLM} & set(columns):
        shown[name] = shown[name].map(p_value)
    keys = [key for key in ("part", "benchmark", "arm") if key in shown]
    return page(shown.set_index(keys)[["difference", *columns]])


def verdict(row: Mapping) -> str:
    """What a paired difference shows: "higher than", "lower than" or "not shown to differ from"."""
    if row["low"] > 0 or row["high"] < 0:
        return "higher than" if row["delta"] > 0 else "lower than"
    return "not shown to differ from"


def sentence(row: Mapping, metric: str, against: str = "base") -> str:
    """What a paired difference shows, in words, with its interval."""
    return f"{row['arm']} is {verdict(row)} {against} on {metric} ({signed(row)})"


def outcome(deltas: pd.DataFrame, metric: str, named: str = "") -> str:
    """Which arms differ from base on one metric, the largest differences first, in one sentence."""
    found: dict[str, list[str]] = {}
    rows = deltas[deltas.benchmark == metric].to_dict("records") if len(deltas) else []
    for row in sorted(rows, key=lambda row: -abs(row["delta"])):
        found.setdefault(verdict(row), []).append(f"{row['arm']} ({signed(row)})")
    told = "; ".join(f"{words} base: {', '.join(arms)}" for words, arms in found.items())
    return f"{named or metric}: {told or NOT_BOTH}"


def counted(deltas: pd.DataFrame, against: str = "base") -> str:
    """How many of many paired differences are shown to be higher and lower, and which, in one sentence."""
    if not len(deltas):
        return NOT_BOTH
    found: dict[str, list[str]] = {"higher than": [], "lower than": []}
    for row in deltas.to_dict("records"):
        found.setdefault(verdict(row), []).append(f"{row['arm']} on {row['benchmark']}")
    told = [
        f"{len(found[words])} {words} {against}" + (f" ({', '.join(found[words])})" if found[words] else "")
        for words in ("higher than", "lower than")
    ]
    return f"Of {len(deltas)} differences: {', '.join(told)}; the others are not shown to differ"
