"""Figures of the study: every function takes plain data and returns a Figure (gallery: a PNG), small enough to commit.

plots.style()            once a notebook
plots.gallery(images, texts)   plots.curve(history)   plots.scores(frame)
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import display, get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

RIGHT, WRONG, PLAIN = "#1a7f4b", "#b3261e", "#222222"  # ink of a right answer, a wrong one, and any other text
COLOURS = 64  # of a picture
BESIDE = {"textcoords": "offset points", "va": "center", "fontsize": 8.5}  # a number beside what it tells
ACROSS = 4  # panels side by side, so that their words can be read on a page
DPI = 80  # at which a figure is laid out; a page gets it sharper, as 150 dots an inch
ARMS = {
    "base": "#8d99a6",
    "mm-lora": "#4c8eda",
    "mm-full": "#1f4e9c",
    "mm-l2t": "#8ed2c6",
    "text-visual": "#e2a336",
    "text-alpaca": "#c9653f",
    "text-orca": "#8a3d5c",
}


def style() -> None:
    """One look for all figures: quiet grid, no frames, compact pictures."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.85)
    plt.rcParams.update({"figure.dpi": DPI, "savefig.dpi": 150, "axes.spines.top": False, "axes.spines.right": False})


def colour(arm: str) -> str:
    """The colour of an arm, the same in every figure; arms of other studies get one by their name."""
    return ARMS.get(arm) or sns.color_palette("husl", 12).as_hex()[sum(map(ord, arm)) % 12]


def verdict(text: str, right: bool) -> tuple[str, str]:
    """A line of a gallery in the ink of a right or a wrong answer."""
    return text or "(empty)", RIGHT if right else WRONG


def answered(question: str, answer: str, reference: str, right: bool) -> list[tuple[str, str]]:
    """Lines of a gallery: what was asked, the answer with its verdict, and what would have been right."""
    said = verdict(f"{'right' if right else 'wrong'}: {answer or '(empty)'}", right)
    return [(question, PLAIN), said, (f"reference: {reference}", PLAIN)]


def turns(said: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """A conversation, (role, text) turns, as lines of a gallery: the answers in colour."""
    return [(f"{role}: {text}", RIGHT if role == "assistant" else PLAIN) for role, text in said]


def words(figure: Figure) -> str:
    """What a figure shows, for those who cannot see it: its titles, labels and arms."""
    axes = figure.axes
    found = [figure.get_suptitle(), *(axis.get_title() or axis.get_title("left") for axis in axes)]
    found += [axes[0].get_xlabel(), axes[0].get_ylabel()] if axes else []
    found += [text.get_text() for text in axes[0].get_yticklabels()] if axes else []
    return "; ".join(dict.fromkeys(" ".join(text.split()) for text in found if text.strip()))


def small(figure: Figure) -> bytes:
    """The figure as a sharp PNG of few colours, small enough to commit."""
    full = io.BytesIO()
    figure.savefig(full, format="png", bbox_inches="tight", dpi=150)
    return _few_colours(full)


def _few_colours(full: io.BytesIO) -> bytes:
    made = io.BytesIO()
    Image.open(full).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    return made.getvalue()


def _shown(figure: Figure) -> tuple[bytes, dict]:
    """What a notebook keeps of a figure: a picture, its size on the page, and what it shows in words."""
    png = small(figure)
    width, height = (round(side * DPI / 150) for side in Image.open(io.BytesIO(png)).size)
    return png, {"width": width, "height": height, "alt": words(figure)}


def finish(figure: Figure, title: str = "", legend_of: Axes | None = None) -> Figure:
    """The figure with its title, and one legend for all panels, of what `legend_of` shows."""
    if shell := get_ipython():  # here: the figure's backend registers its own when the first one is made
        shell.display_formatter.formatters["image/png"].for_type(Figure, _shown)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.tight_layout(w_pad=1.6)
    if legend_of:  # below the panels, where it meets no title
        handles = legend_of.get_legend_handles_labels()
        place = {"loc": "upper left", "bbox_to_anchor": (0.01, 0), "ncols": min(6, len(handles[0]))}
        figure.legend(*handles, frameon=False, fontsize=8.5, **place)
    plt.close(figure)  # a notebook shows the returned figure once, not twice
    return figure


def _panels(names: Sequence[str], height: float, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """A panel for each name, with the same rows, at most ACROSS side by side; `height` of one in inches."""
    across = min(len(names), ACROSS)
    down = -(-len(names) // across)
    size = (2.0 + 2.35 * across, height * down)
    figure, axes = plt.subplots(down, across, figsize=size, sharex=sharex, sharey=True, squeeze=False)
    for spare in axes.flat[len(names) :]:
        spare.remove()
    for axis in axes.flat[: len(names)]:
        axis.tick_params(labelbottom=True)
    axes[0][0].invert_yaxis()
    return figure, list(axes.flat[: len(names)])


def gallery(
    images: Sequence[Image.Image | str | Path],
    texts: Sequence[str | Sequence[tuple[str, str]]],
    columns: int = 4,
    width: int = 30,
) -> display.Image:
    """Pictures in a grid, each with its text below: a string, or (text, ink) lines; `width` in characters.

    A PNG of few colours: noise and textures take up most of a committed notebook.
    """
    rows = -(-len(images) // columns)
    lines = [[(text, PLAIN)] if isinstance(text, str) else list(text) for text in texts]
    wrapped = [[(line, ink) for text, ink in entry for line in textwrap.wrap(text, width) or [""]] for entry in lines]
    depths = [0.19 * max(map(len, wrapped[row * columns : (row + 1) * columns])) for row in range(rows)]
    heights = [height for depth in depths for height in (2.2, depth)]  # inches: a picture, the lines below it
    figure = plt.figure(figsize=(max(2.3, 0.07 * width) * columns, sum(heights) + 0.12 * rows))
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=heights, hspace=0.04, wspace=0.06)
    for place, (image, entry) in enumerate(zip(images, wrapped, strict=True)):
        row, column = divmod(place, columns)
        picture = Image.open(image).convert("RGB") if isinstance(image, (str, Path)) else image
        above, below = (figure.add_subplot(grid[2 * row + part, column]) for part in (0, 1))
        above.imshow(np.asarray(picture.resize((150, 150))))
        above.set_anchor("NW")
        for line, (text, ink) in enumerate(entry):
            offset = (2, -2 - 13 * line)
            below.annotate(text, (0, 1), offset, "axes fraction", "offset points", va="top", fontsize=8.5, color=ink)
        for axis in (above, below):
            axis.axis("off")
    figure.subplots_adjust(left=0.01, right=0.99, top=0.995, bottom=0.005)
    plt.close(figure)
    full = io.BytesIO()
    figure.savefig(full, format="png", bbox_inches="tight", dpi=DPI)
    said = "; ".join(" ".join(line for line, _ in entry) for entry in lines)
    return display.Image(_few_colours(full), alt=f"{len(images)} pictures, each with its text: {said}")


def curve(history: pd.DataFrame, title: str, label: str = "loss per trained token") -> Figure:
    """A loss curve: `history` has `step` and `loss`, and optionally `arm` for several curves in one picture.

    `heldout_loss`, where it was measured, is a dashed line.
    """
    figure, axis = plt.subplots(figsize=(7, 2.8))
    groups = history.groupby("arm", sort=False) if "arm" in history else [("", history)]
    for arm, rows in groups:
        smooth = rows["loss"].rolling(5, min_periods=1, center=True).mean()
        ink = colour(arm) if arm else "#1f4e9c"
        axis.plot(rows["step"], rows["loss"], color=ink, alpha=0.25, linewidth=1)
        axis.plot(rows["step"], smooth, color=ink, label=arm or None)
        if "heldout_loss" in rows:
            measured = rows.dropna(subset="heldout_loss")
            given = {"color": ink, "linestyle": "--", "marker": ".", "label": "held out"}
            axis.plot(measured["step"], measured["heldout_loss"], **given)
    axis.set(title=title[:1].upper() + title[1:], xlabel="optimizer step", ylabel=label)
    axis.set_ylim(bottom=0)
    if "arm" in history or "heldout_loss" in history:
        axis.legend(frameon=False)
    return finish(figure)


def scores(frame: pd.DataFrame, title: str, chance: dict[str, float] | None = None, by: str = "subset") -> Figure:
    """Scores with 95 % intervals: one panel for each value of `by`, one bar an arm; `chance` of a panel is dotted.

    `frame` holds metric rows: arm, value, low, high and the column `by`.
    """
    panels, arms = list(dict.fromkeys(frame[by])), list(dict.fromkeys(frame["arm"]))
    figure, axes = _panels(panels, 0.9 + 0.34 * len(arms), sharex=True)
    for axis, panel in zip(axes, panels, strict=True):
        rows = frame[frame[by] == panel].set_index("arm").reindex(arms)
        error = np.clip([rows["value"] - rows["low"], rows["high"] - rows["value"]], 0, None)
        inks = [colour(arm) for arm in arms]
        axis.barh(arms, rows["value"], xerr=error, color=inks, error_kw={"lw": 1.2}, height=0.7)
        for arm in rows.index[rows["value"].abs() < 0.005]:  # else a bar of nothing looks like one that is missing
            axis.annotate("0.00", (rows["high"][arm], arm), (4, 0), **BESIDE)
        axis.set(title=panel, xlabel="score")
        axis.grid(axis="y", visible=False)
        if chance and panel in chance:
            axis.axvline(chance[panel], color="#555555", linestyle=":", linewidth=1.2)
    return finish(figure, title)


def against(x: pd.Series, y: pd.Series, title: str, x_label: str, y_label: str) -> Figure:
    """One value against another of the same unit, with the line on which they are equal."""
    figure, axis = plt.subplots(figsize=(4.2, 3.6))
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    axis.plot([low, high], [low, high], color="#555555", linewidth=1)
    axis.scatter(x, y, s=16, color="#c9653f", alpha=0.8)
    axis.set(title=title, xlabel=x_label, ylabel=y_label)
    return finish(figure)


def pairs(counts: pd.DataFrame, title: str, mark: Sequence[tuple[str, str]] = ()) -> Figure:
    """A heat map of counts with colours as rows and shapes as columns; the pairs in `mark` get a frame."""
    figure, axis = plt.subplots(figsize=(5.2, 3.4))
    sns.heatmap(counts, annot=True, fmt="d", cmap="Blues", cbar=False, ax=axis, linewidths=1)
    for row, column in mark:
        place = list(counts.columns).index(column), list(counts.index).index(row)
        axis.add_patch(plt.Rectangle(place, 1, 1, fill=False, edgecolor=WRONG, linewidth=2))
    axis.set(title=title, xlabel="", ylabel="")
    axis.tick_params(axis="y", rotation=0)
    return finish(figure)


def _interval(axis: Axes, row: dict, place: str, ink: str) -> None:
    """A difference and its interval: solid if 0 is excluded; with `runs`, a tick for each run's own difference."""
    clear = row["low"] > 0 or row["high"] < 0
    axis.plot([row["low"], row["high"]], [place] * 2, color=ink, lw=3, alpha=1 if clear else 0.4)
    axis.plot(row["delta"], place, "o", color=ink, markersize=7)
    for run in row.get("runs", []):
        axis.plot(run, place, "|", color="#222222", markersize=11)


def differences(frame: pd.DataFrame, title: str) -> Figure:
    """Paired differences from `base`: arm, benchmark, delta, low, high; an interval that excludes 0 is drawn solid."""
    names, height = list(dict.fromkeys(frame["benchmark"])), max(2.6, 0.9 + 0.24 * frame["arm"].nunique())
    figure, axes = _panels(names, height)
    for axis, name in zip(axes, names, strict=True):
        for row in frame[frame["benchmark"] == name].to_dict("records"):
            _interval(axis, row, row["arm"], colour(row["arm"]))
        axis.axvline(0, color="#555555", linewidth=1)
        axis.set(title=name, xlabel="difference")
        axis.margins(y=0.15)
    return finish(figure, title)


def added(frame: pd.DataFrame, title: str, ink: str) -> Figure:
    """Differences of one pair of arms, a row a benchmark: benchmark, delta, low, high, and `runs` where there are."""
    figure, axis = plt.subplots(figsize=(6.4, 0.9 + 0.3 * len(frame)))
    for row in frame.to_dict("records"):
        _interval(axis, row, row["benchmark"], ink)
    axis.axvline(0, color="#555555", linewidth=1)
    axis.invert_yaxis()
    axis.margins(y=0.1)
    axis.set_xlabel("difference")
    axis.set_title(title, loc="left")
    return finish(figure)


def lengths(frame: pd.DataFrame, title: str) -> Figure:
    """How long rows are: one histogram for each value of `set`, of the column `tokens`."""
    names = list(dict.fromkeys(frame["set"]))
    figure, axes = plt.subplots(1, len(names), figsize=(1.0 + 2.2 * len(names), 2.2), sharex=True, squeeze=False)
    edges = np.histogram_bin_edges(frame["tokens"], bins=30)
    for axis, name in zip(axes[0], names, strict=True):
        axis.hist(frame.loc[frame["set"] == name, "tokens"], bins=edges, color="#1f4e9c", linewidth=0)
        axis.set(title=name, xlabel="tokens")
    axes[0, 0].set_ylabel("rows")
    return finish(figure, title)


def times(ratios: pd.DataFrame, title: str) -> Figure:
    """How many times faster and with how many times fewer tokens, by task, on one logarithmic axis; 1 is dotted."""
    names, places = ["times faster", "times fewer tokens"], np.arange(len(ratios))
    figure, axis = plt.subplots(figsize=(7, 0.9 + 0.6 * len(ratios)))
    for offset, name, ink in zip((-0.2, 0.2), names, ("#1f4e9c", "#b9c6d8"), strict=True):
        axis.barh(places + offset, ratios[name], height=0.36, color=ink, label=name)
        for place, value in zip(places + offset, ratios[name], strict=True):
            axis.annotate(f"{value:.1f}", (value, place), (3, 0), **BESIDE)
    axis.axvline(1, color="#555555", linestyle=":", linewidth=1.2)
    axis.set(xscale="log", yticks=places, yticklabels=ratios.index)
    axis.set_xlim(left=min(0.8, ratios[names].min().min()), right=2 * ratios[names].max().max())
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.grid(axis="y", visible=False)
    axis.invert_yaxis()
    return finish(figure, title, axis)


def bars(frame: pd.DataFrame, by: str, columns: Sequence[str], title: str, hue: str = "") -> Figure:
    """One panel for each of `columns`, with an axis of its own; a bar and its number for each `by`, and each `hue`."""
    groups = frame[hue].nunique() if hue else 1
    height = 1.0 + frame[by].nunique() * (0.12 + 0.24 * groups)
    figure, axes = plt.subplots(1, len(columns), figsize=(2 + 2.7 * len(columns), height), sharey=True, squeeze=False)
    ink = {"hue": hue, "palette": ["#1f4e9c", "#b9c6d8", "#e2a336"][:groups]} if hue else {"color": "#1f4e9c"}
    for axis, name in zip(axes[0], columns, strict=True):
        sns.barplot(frame, x=name, y=by, orient="h", ax=axis, legend=bool(hue) and axis is axes[0][0], **ink)
        for drawn in axis.containers:
            axis.bar_label(drawn, fmt=lambda x: f"{x:,.0f}" if x >= 100 else f"{x:.2g}", padding=3, fontsize=8.5)
        axis.set(title=name, xlabel="", ylabel="")
        axis.margins(x=0.2)
        axis.grid(axis="y", visible=False)
    legend_of = None
    if hue:
        legend_of = axes[0][0]
        legend_of.get_legend().remove()
    return finish(figure, title, legend_of)
