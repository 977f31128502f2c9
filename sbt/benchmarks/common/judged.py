"""What the notebooks of judged benchmarks do: questions, answers of arms and of files, verdicts, tables.

asked = questions(run, worlds);  told = answers(run, asked, arms, **how);  said = verdicts(run, asked, told, judge)

A judged benchmark's task is a module with `load(path)`, `ask(arm, questions, cache, **how)`, which gives the answers
by condition, `load_answers(file, questions)`, `cases(questions, answers, arm=..., condition=...)` and `PROTOCOL`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api
from IPython.display import HTML

from sbt import benchmarks, models
from sbt.benchmarks.common import judge as judging
from sbt.data import benchmark_files
from sbt.inference import generation
from sbt.inference.decoding import Decoding
from sbt.report import stats, tables
from sbt.utils import paths

MICRO_WORLD = 72  # questions of each benchmark
WHOLE = ("verdicts", "unread", "missing", "characters", "other's characters")  # shown without decimals
Questions = Mapping[str, Sequence[dict]]  # by benchmark
Answers = dict[str, dict[tuple[str, str], Any]]  # benchmark -> (arm, condition) -> answers, as its task has them


def task(name: str) -> Any:
    """The module of a judged benchmark."""
    return benchmarks.get(name).load("task")


def questions(run: Any, worlds: Mapping[str, Callable[[int, int], list[dict]]]) -> dict[str, list[dict]]:
    """The first `limit` questions of the run's `benchmarks` that `worlds` names, of their parameters `NAME_data`.

    Where that is empty, what the function in `worlds` makes of a number and a seed.
    """
    found = {}
    for name in [name for name in run.p.benchmarks if name in worlds]:
        source = _files(run, name, "data")
        if source:
            found[name] = task(name).load(source)[: run.p.limit or None]
        else:
            found[name] = worlds[name](run.p.limit or MICRO_WORLD, run.p.seed)
    return found


def answers(
    run: Any, asked: Questions, arms: Mapping[str, str], *, progress: judging.Progress = None, **how: Any
) -> Answers:
    """What each arm (name -> folder) says, and what the files of the parameters `NAME_answers` hold, arms by name.

    `how` goes to the benchmarks' `ask`. Finished answers are kept: a killed run goes on. Each arm is loaded once.
    `progress` counts the benchmarks that each arm has answered: a benchmark asks in turns and at many temperatures.
    """
    told: Answers = {name: {} for name in asked}
    total = len(arms) * len(asked)
    for arm, loaded in models.load_vision_models(arms):
        for name, rows in asked.items():
            cache = run.path(f"scratch/answers/{arm}-{name}.jsonl")
            for condition, said in task(name).ask(loaded, rows, cache, **how).items():
                told[name][arm, condition] = said
            if progress:
                progress(sum(len({arm for arm, _ in of}) for of in told.values()), total)
    for name, rows in asked.items():
        folder = _files(run, name, "answers")
        for file in sorted(folder.glob("*.json*")) if folder else ():
            told[name][file.stem, ""] = task(name).load_answers(file, rows)
    return told


def greedy(
    arm: models.Arm, requests: Sequence[dict], cache: Path, *, max_new_tokens: int = 1024, conversation: str = "v1",
    batch_size: int = 64, progress: judging.Progress = None, **others: object,
) -> list[str]:  # fmt: skip
    """The arm's answers to requests of `generation.generate`; `conversation` is the format of an arm that has none."""
    how = Decoding(max_new_tokens, None if arm.conversation else conversation)
    return generation.generate(arm, requests, cache=cache, decoding=how, batch_size=batch_size, progress=progress)


def verdicts(run: Any, asked: Questions, told: Answers, judge: judging.Judge) -> dict[str, list[dict]]:
    """The judge's rows about all answers, by benchmark. What an endpoint said is kept as it comes."""
    found = {}
    for name, by_arm in told.items():
        cases = []
        for (arm, condition), said in by_arm.items():
            cases += task(name).cases(asked[name], said, arm=arm, condition=condition)
        cache = run.path(f"scratch/judge-{name}.jsonl")
        found[name] = judging.judged(task(name).PROTOCOL, judge, cases, cache, run.progress)
    return found


def released(run: Any, name: str) -> dict[str, list[dict]]:
    """Verdicts that others published, of the files of the parameter `NAME_verdicts`, under the names of their arms."""
    folder, protocol = _files(run, name, "verdicts"), task(name).PROTOCOL
    files = sorted(folder.glob("*.json*")) if folder else []
    return {file.stem: [{**row, "arm": file.stem} for row in judging.read(protocol, file)] for file in files}


def metric_rows(said: Mapping[str, Sequence[dict]], seed: int = 0) -> list[dict]:
    """Metric rows of all benchmarks that were judged."""
    return [
        row for name, rows in said.items() if rows for row in judging.metric_rows(task(name).PROTOCOL, rows, seed=seed)
    ]


def headlines(rows: Sequence[dict], said: Mapping[str, Sequence[dict]]) -> pd.DataFrame:
    """The metric rows of the headlines, over all questions, under both rules for unread verdicts."""
    frame = pd.DataFrame(rows)
    metrics = {task(name).PROTOCOL.metric for name in said}
    return frame[frame.metric.str.partition(",")[0].isin(metrics) & frame.subset.str.match(r"all\b")]


def biases(said: Mapping[str, Sequence[dict]]) -> HTML:
    """`judge.biases` as people read them: a table a benchmark, a row an arm, with what the benchmark knows."""
    pages = []
    for name, rows in said.items():
        if rows:
            found = judging.biases(task(name).PROTOCOL, rows).dropna(axis="columns", how="all")
            for column in found:
                digits = 0 if column in WHOLE else 2
                found[column] = found[column].map(f"{{:.{digits}f}}".format, na_action="ignore")
            pages.append(tables.page(found, name).data)
    return HTML("".join(pages))


def differences(said: Mapping[str, Sequence[dict]], base: str, seed: int = 0) -> pd.DataFrame:
    """Every arm against `base`, by benchmark: the difference in points with its interval, what is left of it where
    answers are equally long, and `flips`. Empty where no benchmark judged both on the same questions.
    """
    found = []
    for name, rows in said.items():
        scores = judging.per_item(task(name).PROTOCOL, rows).get(name, pd.DataFrame())
        if base not in scores or not len(scores):
            continue
        length = pd.DataFrame(rows).pivot_table("characters", "question", "arm").loc[scores.index]
        for arm in scores.columns.drop(base):
            measured = stats.paired(list(scores[arm]), list(scores[base]), seed=seed)
            longer = length[arm] - length[base]
            left, low, high = at_equal_length(scores[arm], scores[base], longer)
            told = {"arm": arm, "benchmark": name, **measured, "longer by": longer.mean()}
            told |= {"at equal length": left, "its low": low, "its high": high}
            better = (arm, base) if measured["delta"] >= 0 else (base, arm)
            found.append(told | flips(scores[better[0]], scores[better[1]]))
    return pd.DataFrame(found)


def compared(deltas: pd.DataFrame) -> HTML:
    """The differences as people read them, with what is left of them at equal length."""
    if not len(deltas):
        return HTML("no differences: no other arm was judged")
    left = deltas[["at equal length", "its low", "its high"]].set_axis(["delta", "low", "high"], axis="columns")
    told = ["–" if row["delta"] != row["delta"] else tables.signed(row) for row in left.to_dict("records")]
    more = {"characters more": deltas["longer by"].map("{:+z.1f}".format), "at equal length": told}
    return tables.compared(deltas.assign(**more), ["p", "n", *more, "to doubt", "to nothing"])


def flips(a: Sequence[float], b: Sequence[float]) -> dict[str, int]:
    """How many questions' verdicts must be exchanged between two arms before `a` is not shown to be better than `b`.

    "to doubt": until the 95 % interval of the mean difference (normal) includes 0; "to nothing": until the difference
    is gone. Exchanged are the verdicts that speak most for `a`, so these are the fewest that can do it; 0 where there
    is nothing to lose.
    """
    difference = np.sort(np.asarray(a, float) - np.asarray(b, float))[::-1]
    found = {}
    for name, z in (("to doubt", 1.96), ("to nothing", 0.0)):
        now, count = difference.copy(), 0
        while count < len(now) and now[count] > 0 and now.mean() > z * now.std(ddof=1) / len(now) ** 0.5:
            now[count] = -now[count]
            count += 1
        found[name] = count
    return found


def at_equal_length(a: Sequence[float], b: Sequence[float], longer: Sequence[float]) -> tuple[float, float, float]:
    """The mean difference that is left where both arms' answers are equally long, with its 95 % interval.

    By least squares: the difference of a question's points, on how much `longer` the answer of `a` is, in characters.
    NaN where all differences in length are the same, or questions are fewer than three.
    """
    longer = np.asarray(longer, float)
    if len(longer) < 3 or longer.std() == 0:
        return (float("nan"),) * 3
    fitted = statsmodels.api.OLS(
        np.asarray(a, float) - np.asarray(b, float), statsmodels.api.add_constant(longer / longer.std())
    ).fit(cov_type="HC3")
    return float(fitted.params[0]), *map(float, fitted.conf_int()[0])


def _files(run: Any, name: str, what: str) -> Path | None:
    """The file or folder that a parameter names, the published ones for "hub", None where it is empty."""
    parameter = f"{name}_{what}"
    given = getattr(run.p, parameter, "")
    found = benchmark_files.questions(benchmarks.get(name).sources[parameter], given, run.progress) if given else ""
    return paths.resolve(str(found)) if found else None
