"""Controls of the vision benchmarks: the same questions about another picture, or about none.

A score that does not fall when the pictures are shuffled was not earned by looking at them.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from sbt.report import tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONDITIONS = ("real", "shuffled", "blank")


def pictures(names: Sequence[str], condition: str, seed: int) -> dict[str, str | None]:
    """Image name -> the image shown instead: itself, that of another item (a seeded derangement), or None (blank).

    ValueError for an unknown condition, or for shuffling fewer than two different images.
    """
    distinct = sorted(set(names))
    if condition == "real":
        return {name: name for name in distinct}
    if condition == "blank":
        return dict.fromkeys(distinct)
    if condition != "shuffled":
        raise ValueError(f"condition {condition!r} is none of {', '.join(CONDITIONS)}")
    if len(distinct) < 2:
        raise ValueError("one image alone cannot be shuffled")
    order = distinct[:]
    random.Random(seed).shuffle(order)  # each is shown the next of a random ring: nothing keeps its own
    return dict(zip(order, order[1:] + order[:1], strict=True))


def shown(folder: Path, names: Sequence[str], condition: str, seed: int) -> dict[str, Path | Image.Image]:
    """Image name -> what is shown under a condition: a file in `folder`, or a grey picture."""
    found = pictures(names, condition, seed)
    return {name: folder / other if other else blank() for name, other in found.items()}


def blank(size: int = 224) -> Image.Image:
    """A picture of nothing: mid-grey."""
    return Image.new("RGB", (size, size), (128, 128, 128))


def counts(items: Sequence[dict]) -> dict[str, int]:
    """How much a part of a benchmark holds: questions, different pictures, questions whose answer is yes."""
    yes = sum(item["label"].lower() == "yes" for item in items)
    return {"questions": len(items), "pictures": len({item["image"] for item in items}), "yes": yes}


def commonest(kinds: Sequence[str], labels: Sequence[str]) -> list[str]:
    """What one would say who knows each kind of questions and never looks: its most frequent label, a question each.

    Its score is a blind level. The labels are the very ones that are scored, so no blind arm is expected above it.
    """
    counted: dict[str, Counter] = {}
    for kind, label in zip(kinds, labels, strict=True):
        counted.setdefault(kind, Counter())[label] += 1
    return [counted[kind].most_common(1)[0][0] for kind in kinds]


def others(items: Sequence[dict], seed: int) -> list[str]:
    """A person's words about another picture, the one `pictures` shows when shuffled: its first reference, an item.

    Their score is the blind level of describing: what one gets who knows what pictures show in general.
    """
    first = {item["image"]: item["references"][0] for item in items}
    other = pictures(list(first), "shuffled", seed)
    return [first[other[item["image"]]] for item in items]


def subset(part: str, condition: str) -> str:
    """What metric rows of a part of a benchmark are called: "count" with the right picture, else "count, blank".

    A benchmark of one part, "", is called by the condition alone.
    """
    return part if part and condition == "real" else f"{part}, {condition}".removeprefix(", ")


def split(rows: pd.DataFrame) -> pd.DataFrame:
    """Metric rows with the `task` and the `condition` that make up their subset: "count, blank", or "real" alone."""
    parts = [subset.split(", ") for subset in rows["subset"]]
    tasks = [", ".join(part for part in found if part not in CONDITIONS) or "all" for found in parts]
    conditions = [next((part for part in found if part in CONDITIONS), "real") for found in parts]
    return rows.assign(task=tasks, condition=conditions)


def by_item(samples: Sequence[dict], value: str) -> pd.DataFrame:
    """One score of the items that were asked about the right picture under the first protocol: items x arms."""
    rows = split(pd.DataFrame(samples))
    rows = rows[rows["condition"] == "real"]
    if "protocol" in rows:
        rows = rows[rows["protocol"] == rows["protocol"].iloc[0]]
    place = rows.groupby(["arm", "subset"]).cumcount()  # every arm answers in the order of the items
    return rows.assign(item=place).pivot(index=["subset", "image", "item"], columns="arm", values=value).astype(float)


def compared(rows: pd.DataFrame, levels: Mapping[str, float], digits: int = 2) -> pd.DataFrame:
    """By arm and task, the score under each condition beside the blind level of the task.

    `rows` are metric rows of one metric and protocol. `sees`: the whole interval with the right picture lies above the
    blind level and above both controls. `left`: how much of the lead over the blind level stays without the right
    picture, by the better control, 0 for none; NaN where the arm is not shown to see.
    """
    found = {}
    for (arm, task), part in split(rows).groupby(["arm", "task"], sort=False):
        by = part.set_index("condition").to_dict("index")
        real, level = by["real"], levels[task]
        other = max(by["shuffled"]["value"], by["blank"]["value"])
        sees = real["low"] > max(level, other)
        found[arm, task] = {condition: tables.cell(by[condition], digits) for condition in CONDITIONS} | {
            "blind level": round(level, digits),
            "sees": sees,
            "left": round(max(other - level, 0) / (real["value"] - level), 2) if sees else np.nan,
        }
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(["arm", "task"])


def verdicts(table: pd.DataFrame) -> str:
    """What `compared` found, a line an arm: the tasks in which it sees, and those in which that does not show.

    And those in which half of its lead or more stays without the right picture: what it sees there helps little.
    """
    lines = []
    for arm, part in table.groupby(level="arm", sort=False):
        tasks, sees = part.index.get_level_values("task"), part["sees"].to_numpy(bool)
        kept = (part["left"] >= 0.5).to_numpy(bool)
        groups = {"sees in": sees, "not shown to see in": ~sees, "keeps half its lead without the picture in": kept}
        found = [f"{verb} {', '.join(tasks[which])}" for verb, which in groups.items() if which.any()]
        lines.append(f"{arm}: {'; '.join(found)}")
    return "\n".join(lines)


def figure(rows: pd.DataFrame, title: str, levels: Mapping[str, float] | None = None) -> "Figure":
    """Scores with 95 % intervals by task, a panel a condition, a point an arm; `levels` (blind) are dotted."""
    import matplotlib.pyplot as plt  # here, so that `sbt score` need not wait for it

    from sbt.report import plots

    found = split(rows)
    tasks, arms = list(dict.fromkeys(found["task"])), list(dict.fromkeys(found["arm"]))
    step = 0.7 / len(arms)
    height = 1.3 + len(tasks) * max(0.34, 0.12 * len(arms))
    drawn, axes = plt.subplots(1, len(CONDITIONS), figsize=(9, height), sharex=True, sharey=True)
    for axis, condition in zip(axes, CONDITIONS, strict=True):
        for number, arm in enumerate(arms):
            part = found[(found["condition"] == condition) & (found["arm"] == arm)]
            places = [tasks.index(task) + step * (number - (len(arms) - 1) / 2) for task in part["task"]]
            error = np.clip([part["value"] - part["low"], part["high"] - part["value"]], 0, None)
            ink = plots.colour(arm)
            axis.errorbar(part["value"], places, xerr=error, fmt="o", color=ink, label=arm, ms=4, elinewidth=1.6)
        for place, task in enumerate(tasks):
            if levels and task in levels:
                axis.plot([levels[task]] * 2, [place - 0.45, place + 0.45], color="#555555", ls=":", lw=1.6)
        axis.set(title=condition, yticks=range(len(tasks)), yticklabels=tasks, ylim=(len(tasks) - 0.5, -0.5))
        axis.grid(axis="y", visible=False)
    return plots.finish(drawn, title, axes[0])
