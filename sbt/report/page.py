"""What the report compares and says: every arm with base, told facts apart, what the images add, and its limits.

found = page.compared(results, tuned, text_only, seed=0, told=facts.told)
run.answer(*page.answers(found))
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from sbt.report import claims, paired, stats, tables

NAMED = {"mc1": "TruthfulQA mc1", "mc2": "TruthfulQA mc2", "rougeL_acc": "TruthfulQA writing", "ETHICS": "ETHICS"}
NOT_TOLD, TOLD = "facts it was not told", "facts it was told"
COLUMNS = ["arm", "benchmark", "delta", "low", "high", "p", "n", "test", "runs_a", "runs_b", "p_holm"]


@dataclass
class Compared:
    """Differences as tables of COLUMNS: `deltas` from base, `parts` of mc2 by told and not told, `images` of pictures.

    `text` holds scores, items x arms, by benchmark; `constant` says why an (arm, benchmark) has no difference.
    """

    tuned: str
    text_only: str
    text: dict[str, pd.DataFrame]
    deltas: pd.DataFrame
    parts: pd.DataFrame
    images: pd.DataFrame
    constant: dict[tuple[str, str], str] = field(default_factory=dict)


def compared(
    results: Any, tuned: str, text_only: str, *, seed: int, told: Callable[[str], Collection[str]] | None
) -> Compared:
    """All differences of a study. `told` gives the questions whose facts an arm was told; None: nobody knows.

    With `told`, the scores of `tuned` on facts it was not told join `results.scores`, for the claims about them.
    """
    text = {NAMED.get(name, name): table for name, table in results.scores.items() if paired.BASE in table}
    deltas, constant = [], {}
    for name, benchmark in NAMED.items():
        for arm in results.one_answer.get(name, ()):
            if why := claims.constant([name], [paired.BASE, arm], results.one_answer):
                constant[arm, benchmark] = why
        for arm in _others(text.get(benchmark)):
            deltas.append(_difference(text[benchmark], arm, paired.BASE, benchmark, seed))
    parts, mc2 = [], results.scores.get("mc2")
    for arm in _others(mc2) if told else ():
        known = mc2.index.isin(told(arm))
        for name, picked in ((NOT_TOLD, ~known), (TOLD, known)):
            if known.any() and picked.any():
                parts.append(_difference(mc2[picked], arm, paired.BASE, name, seed))
                if (arm, name) == (tuned, NOT_TOLD):
                    results.scores["mc2, facts not told"] = mc2[picked]
    images = [
        _difference(table, tuned, text_only, name, seed)
        for name, table in text.items()
        if {tuned, text_only} <= set(paired.group(table)) and (tuned, name) not in constant
    ]
    tables_ = (pd.DataFrame(found, columns=COLUMNS) for found in (stats.corrected(deltas), parts, images))
    return Compared(tuned, text_only, text, *tables_, constant)


def _others(scores: pd.DataFrame | None) -> list[str]:
    return [] if scores is None else [arm for arm in paired.group(scores) if arm != paired.BASE]


def _difference(scores: pd.DataFrame, arm: str, other: str, name: str, seed: int) -> dict:
    return {"arm": arm, "benchmark": name, **paired.between(scores, arm, other, seed)}


def answers(found: Compared) -> list[str]:
    """The answer in sentences: facts not told and told (or all of TruthfulQA), ETHICS, and what the pictures add."""
    frames = [part for part in (found.parts, found.deltas) if len(part)] or [found.deltas]
    mine = pd.concat(frames).query("arm == @found.tuned").drop_duplicates("benchmark")
    mine = mine.set_index("benchmark", drop=False)
    truth = [name for name in (NOT_TOLD, TOLD) if name in mine.index] or ["TruthfulQA mc2"]
    said = ["; ".join(tables.sentence(mine.loc[name], name) for name in truth if name in mine.index)]
    if unclear := found.constant.get((found.tuned, "ETHICS")):
        said.append(f"Nothing can be told of ETHICS: {unclear.removeprefix('constant: ')}")
    elif "ETHICS" in mine.index:
        said.append(tables.sentence(mine.loc["ETHICS"], "ETHICS"))
    for row in found.images[found.images.benchmark == "TruthfulQA mc2"].to_dict("records"):
        said.append(f"With pictures, {tables.sentence(row, 'TruthfulQA mc2', found.text_only)}")
    return [one for one in said if one] or [f"{found.tuned} was not scored beside base on pure text"]


def published_size(row: Mapping) -> str:
    """The size that a paper reports of a claim, and of what, where that is another score than the one here."""
    size, of = row["published"], row["of"]
    if size is None or size != size:
        return "–"
    return f"{size:+.3g}" + ("" if of in row["measured"] else f" on {of}")


def limits(found: Compared) -> list[str]:
    """What these results do not show, as sentences."""
    said = [
        "Another seed gives other weights. Arms that were trained several times have intervals over runs too, where "
        "they are compared. The tables above show the first run, with intervals over items only.",
        "Multiple choice is scored by log-likelihood. Where a judge reads the answers, the score is that judge's.",
    ]
    if len(found.parts):
        said += [
            "This is the micro-world: coloured shapes, and two models of about a million weights. It is a controlled "
            "experiment with known answers, and no evidence about LLaMA or about pictures of the real world.",
            "The instructions state some of the very facts that TruthfulQA asks for; the figure above separates them.",
        ]
    if found.constant:
        said.append(
            f"{', '.join(dict.fromkeys(arm for arm, _ in found.constant))}: one answer to nearly all rows of ETHICS, "
            "by them or by base; what such an arm scores is the share of that answer."
        )
    return said
