"""Results of the benchmarks of one study, found by what the steps hold and not by their names.

results = collect.results(run, benchmarks.specs());  results.rows;  results.scores["mc2"]  (items x arms)
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from sbt.report import paired
from sbt.study import manifest, params, runs
from sbt.utils.errors import MissingStep, RunError
from sbt.utils.progress import note

TYPES = ("conversation", "detail", "reasoning")  # of visual instructions, as `types` of 10_data_preparation has them
LOSSES = {"answer_only": "tuned", "instruction": "whole_instruction", "no_system": "no_system", "no_templates": "l2t"}
ARM = ["arm", "step", "role", "model", "data", "tuned on", "tuning", "loss", "optimizer steps"]


@dataclass(frozen=True)
class Results:
    """`rows`: metric rows, each arm's from the first step that scored it. `folders`: benchmark -> step -> its folder.

    `scores`: score -> items x arms, from all steps, without arms that give nearly all items one answer. `one_answer`:
    score -> arm -> share of items that get the arm's commonest option, where a benchmark tells it.
    """

    rows: list[dict]
    folders: dict[str, dict[str, Path]]
    scores: dict[str, pd.DataFrame]
    one_answer: dict[str, dict[str, float]]

    def samples(self, benchmark: str) -> pd.DataFrame:
        """Scored items of the first step that scored a benchmark; an empty frame where none did."""
        first = next(iter(self.folders.get(benchmark, {}).values()), None)
        return pd.DataFrame(runs.samples(first) if first else [])


def results(run: Any, specs: Mapping[str, Any], steps: Sequence[str] = (), kind: str = "") -> Results:
    """Read what the finished steps of the run's study scored, each step recorded as an input of the run.

    `steps`: those of these that are finished; empty: every step that scored a benchmark of `specs`. `kind`: scores of
    items of "text" or "vision" benchmarks only. Steps that asked other arms in the same way are joined: the later ones
    hold further runs. MissingStep where there is none.
    """
    study = run.folder.parent
    finished = manifest.finished_steps(study, but=run.step)
    if steps and not set(finished) & set(steps):
        run.upstream(steps[0])  # says how to make it
    scored = [run.upstream(step) for step in steps if step in finished] if steps else _scored(study, specs, finished)
    if not steps:
        for folder in scored:
            run.upstream(folder.name.removesuffix(manifest.STALE))  # reads every result file to check its hash
    if not scored:
        raise MissingStep(f"no finished step of {run.study} scored a benchmark: make them with `sbt run {run.study}`")
    return read(scored, specs, kind)


def of_study(study: Path, specs: Mapping[str, Any]) -> Results | None:
    """The same of any study's folder, its damaged steps left out and named; None where no step scored a benchmark."""
    scored = []
    for step in manifest.finished_steps(study):
        try:
            scored += _scored(study, specs, [step])
        except RunError as error:
            note(f"left out: {error}")
    return read(scored, specs) if scored else None


def _scored(study: Path, specs: Mapping[str, Any], steps: Sequence[str]) -> list[Path]:
    """Folders of the steps that scored a benchmark."""
    folders = [manifest.whole(study / step) for step in steps]
    return [folder for folder in folders if any(row["benchmark"] in specs for row in runs.metrics(folder))]


def read(scored: Sequence[Path], specs: Mapping[str, Any], kind: str = "") -> Results:
    """Results of the folders of steps."""
    folders: dict[str, dict[str, Path]] = {}
    metric_rows: list[dict] = []
    known: set[tuple[str, str]] = set()  # (benchmark, arm)
    for folder in scored:
        rows = [row for row in runs.metrics(folder) if row["benchmark"] in specs]
        for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
            folders.setdefault(benchmark, {})[folder.name.removesuffix(manifest.STALE)] = folder
        metric_rows += [row for row in rows if (row["benchmark"], row["arm"]) not in known]
        known |= {(row["benchmark"], row["arm"]) for row in rows}
    scores, one_answer = {}, {}
    samples = cache(runs.samples)  # a step may hold several benchmarks
    for benchmark, spec in specs.items():
        if benchmark in folders and spec.per_item and kind in ("", spec.kind):
            item_scores, of_steps = spec.load("per_item"), list(folders[benchmark].values())
            asked = [_asked(folder, spec.asked) for folder in of_steps]
            alike = [folder for folder, way in zip(of_steps, asked, strict=True) if way == asked[0]]
            tables = [item_scores(samples(folder)) for folder in alike]
            scores |= paired.together(_new_arms(tables) if spec.asked else tables)
            if spec.one_answer:
                one_answer |= spec.load("one_answer")(samples(of_steps[0]))
    for name, shares in one_answer.items():
        if name in scores:
            scores[name] = scores[name][paired.judging(scores[name], shares)]
    return Results(metric_rows, folders, scores, one_answer)


def _asked(folder: Path, names: Sequence[str]) -> dict:
    """The parameters that say how a step asked: those of `names`, or all but those that say which arms it asked.

    Of several protocols only the first counts, since items are compared under it.
    """
    values = params.load_yaml(folder / "params.yaml")
    values |= {"protocols": values["protocols"][:1]} if "protocols" in values else {}
    which = ("step", "arms", "arm_steps", "seed")
    return {name: value for name, value in values.items() if (name in names if names else name not in which)}


def _new_arms(tables: Sequence[dict[str, pd.DataFrame]]) -> list[dict[str, pd.DataFrame]]:
    """The tables of steps, each without the arms of those before it."""
    known, found = set(), []
    for table in tables:
        found.append({name: scores.drop(columns=known & set(scores)) for name, scores in table.items()})
        known |= {arm for scores in table.values() for arm in scores}
    return found


def arms(study: Path) -> pd.DataFrame:
    """The arms that finished steps of a study made: arm, step, role, model, data, tuned on, tuning, loss, steps.

    `role` is what a claim calls such an arm, `model` the base model's id or folder, `data` the name of the visual
    instructions or of the authors' checkpoint.
    """
    taken = {step: _values(study / step) for step in manifest.finished_steps(study)}
    rows = []
    for step, values in taken.items():
        if not values.get("arm"):
            continue
        start = taken.get(values.get("start"), values)  # of an aligned arm the one that it began as
        data = taken.get(start.get("data"), {})
        row = {"arm": values["arm"], "step": step, "role": _role(values, data)}
        row["model"] = start.get("language_model", "")
        row["data"] = values.get("checkpoint") or data.get("instruct_data", "")
        row |= {"tuned on": _tuned_on(values), "tuning": values.get("tuning", "")}
        row["loss"] = values.get("method") or (values.get("loss", "answer_only") if "tuning" in values else "")
        steps = values.get("max_steps") or values.get("epochs") and f"{values['epochs']:g} epochs" or ""
        rows.append(row | {"optimizer steps": str(steps)})
    return pd.DataFrame(rows, columns=ARM)


def roles(made: pd.DataFrame, scored: Collection[str]) -> dict[str, str]:
    """Role -> arm, the first of the arms that were scored; `uniform` is `tuned` where arms of one type are there."""
    shown = made[made.arm.isin(scored)].drop_duplicates("role")
    found = {role: arm for role, arm in zip(shown.role, shown.arm, strict=True) if role}
    return found | ({"uniform": found["tuned"]} if "tuned" in found and set(TYPES) & set(found) else {})


def base_model(results: Results) -> str:
    """Id or folder of the untuned language model that the benchmarks on text asked; empty where none did."""
    values = (_values(folder) for steps in results.folders.values() for folder in steps.values())
    return next((found["base"] for found in values if found.get("base")), "")


def _values(folder: Path) -> dict:
    return params.load_yaml(manifest.whole(folder) / "params.yaml")


def _role(values: Mapping, data: Mapping) -> str:
    """What claims call an arm that was made with these parameters, from data of a step with those."""
    if "method" in values:
        pairs = {"length_matched": "length_matched", "random": "random_pairs"}
        return "random_labels" if values["flip"] else pairs.get(values["pairs"], values["method"])
    if "source" in values:
        return "text_only" if values["source"] == "visual" else values["source"]
    if "checkpoint" in values:  # by the authors' names; LoRA without its other tensors is not what was trained
        kind = values["checkpoint"].rpartition("-")[2] if values["text_lora"] == "with" else ""
        return {"ft": "tuned", "lora": "lora"}.get(kind, "")
    if values.get("tuning") == "lora":
        return "lora"
    if one := [name for name, share in zip(TYPES, data.get("types", ()), strict=False) if share == 1]:
        return one[0]
    if one := [name for name in TYPES if name in data.get("instruct_data", "")]:
        return one[0]
    return LOSSES.get(values.get("loss"), "")


def _tuned_on(values: Mapping) -> str:
    if source := values.get("source"):
        words = {"visual": "the visual instructions, their pictures taken away"}
        return words.get(source, f"text-only instructions ({source})")
    if start := values.get("start"):
        return f"preferences, from {start}"
    return "visual instructions, with their pictures" if "connector" in values else ""
