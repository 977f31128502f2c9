"""Answers that a judge reads: any protocol (prompt, parser, aggregation) with any judge.

verdicts = judged(PROTOCOL, judge, cases, cache);  rows = metric_rows(PROTOCOL, verdicts);  biases(PROTOCOL, verdicts)

A judge is a model behind an endpoint, an arm in memory, a file of earlier verdicts, or rules. A verdict is a row that
holds the raw text and all that it depends on; every table is computed from such rows alone, by `sbt score`, too.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sbt.benchmarks import check_protocol
from sbt.report import stats
from sbt.utils import checks, paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_json, read_jsonl, read_text, sha256
from sbt.utils.text import short

SAME = ("judge", "template_hash", "temperature")  # what scores must share to be compared
KEY = ("arm", "question", "turn", "order", "condition")
KINDS = {"arm": str, "question": str | int, "turn": int, "order": str, "condition": str, "subset": str, "judge": str,
         "template": str, "template_hash": str, "temperature": float | int | None, "verdict": str | None}  # fmt: skip
HALF = re.compile("[\ud800-\udfff]")  # which no table holds
ORDERS = ("first", "second")  # where the arm's own answer is shown, of two
# What a row says where nothing else is known; "asked" is a hash of the prompt.
BLANK = {"subset": "", "turn": 1, "order": "", "condition": "", "template_hash": "", "temperature": 0.0, "asked": "",
         "characters": 0, "other_characters": 0, "empty": False, "skipped": ""}  # fmt: skip
Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is judged, by its publishers' code.

    benchmark: its name. templates: name -> {"system", "prompt"}, `{name}` a place to fill. parse: the raw verdict ->
    scores in the order shown (one, or two where two answers are shown), None where it cannot be read. unit: (own,
    other) -> points of an answer, 0 to 1. metric, scale: the headline is the mean of the points times `scale`, or,
    where `of_reference`, the sum of own scores over the sum of the reference's. lowest: scores of an unread verdict
    where it counts as the lowest; official: what the publishers' code does with it, "lowest" or "dropped".
    max_tokens, temperature: of a verdict. publishers: rows of their own file of verdicts -> ours, as far as it goes.
    asked: whether the publishers' code would have asked for a row, which is what protocol "paper" scores.
    """

    benchmark: str
    templates: Mapping[str, Mapping[str, str]]
    parse: Callable[[str], tuple[float, ...] | None]
    unit: Callable[[float, float], float]
    metric: str
    scale: float
    lowest: tuple[float, ...]
    official: str
    max_tokens: int
    temperature: float = 0.0
    of_reference: bool = False
    publishers: Callable[[Any], list[dict]] | None = None
    asked: Callable[[Mapping], bool] = lambda row: True

    def hash(self, template: str) -> str:
        """What names a template's words in every row."""
        return sha256(repr(sorted(self.templates[template].items())))[:12]

    def case(
        self, template: str, *, texts: Mapping[str, str], arm: str, question: object, answer: str, other: str = "",
        item: object = None, **more: object,
    ) -> dict:  # fmt: skip
        """One question to the judge: the messages, what its verdict's row will say, and the `item` for rules.

        `texts` fill the template; with an `order`, `answer` and the `other` one fill output_1 and output_2 in it.
        """
        row = BLANK | {"benchmark": self.benchmark, "arm": arm, "question": question, "template": template} | more
        if row["order"]:
            shown = (answer, other) if row["order"] == "first" else (other, answer)
            texts = {**texts, "output_1": shown[0], "output_2": shown[1]}
        words = self.templates[template]
        text = re.sub(r"\{(\w+)\}", lambda found: texts.get(found[1], found[0]), words["prompt"])
        row |= {"template_hash": self.hash(template), "asked": sha256(text)[:12], "characters": len(answer)}
        row |= {"other_characters": len(other), "empty": not answer.strip(), "answer": answer}
        messages = [{"role": "system", "content": words["system"]}] if words["system"] else []
        messages.append({"role": "user", "content": text})
        return {"row": row, "messages": messages, "item": item, "answer": answer, "other": other}


@dataclass(frozen=True)
class Judge:
    """Who judges: a name for every row, and a function that gives the raw verdict on each case.

    `ask(protocol, cases, cache, progress)`: a text each, why there is none (`openai_api.Skip`, None), or a verdict's
    row of an earlier run. `temperature` None is the protocol's.
    """

    name: str
    ask: Callable[[Protocol, Sequence[dict], Path, Progress], list[object]]
    temperature: float | None = None


def templates(file: Path) -> dict[str, dict[str, str]]:
    """The prompts of a benchmark, `prompts.yaml` beside the module `file`."""
    return yaml.safe_load(read_text(Path(file).with_name("prompts.yaml")))


def judged(
    protocol: Protocol, judge: Judge, cases: Sequence[dict], cache: Path, progress: Progress = None
) -> list[dict]:
    """A row for each case, with the judge's raw verdict; what an endpoint answered stays in `cache`."""
    said = judge.ask(protocol, cases, cache, progress)
    rows = []
    temperature = protocol.temperature if judge.temperature is None else judge.temperature
    for case, verdict in zip(cases, said, strict=True):
        given = isinstance(verdict, str)
        by = {"judge": judge.name, "temperature": temperature, "verdict": verdict if given else None}
        by |= {"skipped": "" if given else str(verdict or "not judged")}
        rows.append({**case["row"], **({name: verdict[name] for name in by} if isinstance(verdict, dict) else by)})
    return rows


def read(protocol: Protocol, file: Path | str) -> list[dict]:
    """Verdict rows of this benchmark in a file: as a step's `samples.jsonl` holds them, or in the publishers' form.

    DataError names the row where a key is missing or of another kind, or an answer is judged twice in the same order.
    """
    path = Path(file)
    rows = read_json(path) if path.suffix == ".json" else read_jsonl(path)
    name = paths.shown(path)
    if isinstance(rows, list) and any("benchmark" in row for _, row in checks.listed(rows, name, "verdicts")):
        rows = [row for row in rows if row.get("benchmark") == protocol.benchmark and "verdict" in row]
    elif protocol.publishers:
        try:
            rows = [BLANK | {"benchmark": protocol.benchmark} | row for row in protocol.publishers(rows)]
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise DataError(f"{name} holds neither verdict rows nor the publishers' own form ({error!r})") from None
    seen = set()
    for where, row in checks.listed(rows, name, f"verdicts of {protocol.benchmark}"):
        for one, kind in KINDS.items():
            if not isinstance(value := checks.key(row, one, where), kind):
                raise DataError(f"{where}: {one!r} cannot be {short(value)}. Mend or remove that row")
        if half := [one for one, value in row.items() if isinstance(value, str) and HALF.search(value)]:
            raise DataError(f"{where}: {half[0]!r} holds half a character. Mend or remove that row")
        key = tuple(row[one] for one in KEY)
        if key in seen:
            raise DataError(f"{where}: arm {key[0]!r}, question {key[1]!r} is judged twice. Keep one verdict of each")
        seen.add(key)
    return list(rows)


def one_judge(rows: Sequence[Mapping]) -> None:
    """DataError where rows are of different judges, templates or temperatures: such scores do not compare."""
    for name in SAME:
        by_template: dict[object, set] = {}
        for row in rows:
            by_template.setdefault(row["template"] if name == "template_hash" else "", set()).add(row[name])
        for found in by_template.values():
            if len(found) > 1:
                told = f"with different {name}s ({', '.join(sorted(map(str, found)))}): their scores do not compare"
                raise DataError(f"the arms were judged {told}. Judge them all by the same")


def table(protocol: Protocol, rows: Sequence[dict]) -> pd.DataFrame:
    """The rows with `own` and `other` scores, NaN where the verdict cannot be read, and whether it is `unparsed`."""
    frame = pd.DataFrame(rows)
    scores = []
    for row in rows:
        found = protocol.parse(row["verdict"]) if isinstance(row["verdict"], str) else None
        found = found if found is None or row["order"] != "second" else found[::-1]
        scores.append((*(found or (float("nan"),)), float("nan"))[:2])
    frame[["own", "other"]] = scores
    frame["unparsed"] = frame.own.isna() & frame.verdict.notna()
    return frame


def ruled(protocol: Protocol, frame: pd.DataFrame, rule: str = "") -> pd.DataFrame:
    """The rows that count under a rule for unread verdicts, with their `points`; "": the publishers' rule.

    "dropped" leaves them out, "lowest" gives them the protocol's lowest scores. Without a verdict nothing counts.
    """
    if (rule or protocol.official) == "lowest":
        frame = frame.copy()
        frame.loc[frame.unparsed, ["own", "other"][: len(protocol.lowest)]] = protocol.lowest
    kept = frame[frame.own.notna()]
    return kept.assign(points=[protocol.unit(own, other) for own, other in zip(kept.own, kept.other, strict=True)])


def metric_rows(protocol: Protocol, rows: Sequence[dict], *, seed: int = 0, name: str = "standard") -> list[dict]:
    """Metric rows of every arm: all, by subset and by turn, with 95 % intervals over questions.

    And, over all, the headline under the other rule for unread verdicts. The judge stands in `protocol`, so that
    scores of different judges are never set side by side. DataError where the rows are of several.
    """
    one_judge(rows)
    frame, found = table(protocol, rows), []
    for (arm, condition), part in frame.groupby(["arm", "condition"], sort=False):
        hashes = "+".join(sorted(set(part.template_hash)))
        where = f", {condition}" if condition else ""
        named = {"arm": arm, "benchmark": protocol.benchmark, "seed": seed}
        named |= {"protocol": f"{name}, judged by {rows[0]['judge']}", "template_hash": hashes}
        counted = ruled(protocol, part)
        several = counted.subset.str.split("+")  # an item may be of several subsets
        names = dict.fromkeys(name for some in several for name in some if name)
        groups = {"all": counted} | {name: counted[[name in some for some in several]] for name in names}
        if part.turn.nunique() > 1:
            groups |= {f"turn {turn}": some for turn, some in counted.groupby("turn")}
        groups = {one + where: some for one, some in groups.items() if len(some)}
        found += [_row(protocol, some, subset, protocol.metric, named) for subset, some in groups.items()]
        rule = "dropped" if protocol.official == "lowest" else "lowest"
        other = ruled(protocol, part, rule)
        metric = f"{protocol.metric}, unread {rule}"
        found += [_row(protocol, other, f"all{where}", metric, named)] if len(other) else []
        for rate in ("empty", "characters", "unparsed"):
            share = {**named, "subset": f"all{where}", "metric": rate}
            found.append(stats.metric_row(list(part[rate].astype(float)), groups=list(part.question), **share))
    return found


def _row(protocol: Protocol, some: pd.DataFrame, subset: str, metric: str, named: dict) -> dict:
    measured = {"subset": subset, "metric": metric, "scale": protocol.scale, "n": some.question.nunique(), **named}
    if protocol.of_reference:
        return stats.metric_row(list(some.own), list(some.other), groups=list(some.question), **measured)
    return stats.metric_row(list(some.points), groups=list(some.question), **measured)


def biases(protocol: Protocol, rows: Sequence[dict]) -> pd.DataFrame:
    """What else decides, by arm: verdicts that cannot be read or are missing, empty answers, length, and position.

    "longer": share of the verdicts for the longer of two answers (draws half); where one answer is rated, the rank
    correlation of its score with its length. "shown first": share for the answer shown first. "orders agree": share
    of questions whose two orders give the same verdict. 0.5 is no preference, and so is a correlation of 0.
    """
    found = {}
    for (arm, condition), part in table(protocol, rows).groupby(["arm", "condition"], sort=False):
        read = ruled(protocol, part, "dropped")
        told = {"verdicts": len(part), "unread": part.unparsed.sum(), "missing": part.verdict.isna().sum()}
        told |= {"empty answers": part["empty"].mean(), "characters": part.characters.mean()}
        if read.other.notna().any():
            won = (read.own > read.other) + 0.5 * (read.own == read.other)
            longer, shown = read.characters - read.other_characters, read.asked != ""
            told["other's characters"] = part.other_characters.mean()
            told["longer"] = won.where(longer > 0, 1 - won)[longer != 0].mean()
            told["shown first"] = won.where(read.order == "first", 1 - won)[shown].mean()
            both = won.groupby([read.question, read.turn]).agg(["min", "max", "size"])
            told["orders agree"] = (both["min"] == both["max"])[both["size"] > 1].mean()
        elif read.own.nunique() > 1 and read.characters.nunique() > 1:
            told["longer"] = read.own.corr(read.characters, method="spearman")
        found[f"{arm}, {condition}" if condition else arm] = told
    return pd.DataFrame(found).T.astype(float).round(3)


def counting(protocol: Protocol, file: Path | str, name: str) -> list[dict]:
    """The verdict rows of a file that count: all, or under "paper" those that the publishers' code asks for."""
    check_protocol(name, ("standard", "paper"))
    return [row for row in read(protocol, file) if name == "standard" or protocol.asked(row)]


def scored(protocol: Protocol, rows: Sequence[dict], name: str) -> dict:
    """What `sbt score` prints of verdict rows: who judged, and by arm the metrics and biases.

    DataError where they are of several judges.
    """
    found: dict[str, dict] = {}
    biased = biases(protocol, rows).to_dict("index")
    for row in metric_rows(protocol, rows, name=name):
        told = found.setdefault(row["arm"], {})
        told[row["metric"] if row["subset"] == "all" else f"{row['metric']} ({row['subset']})"] = row["value"]
        told.setdefault("n", row["n"])
    for arm, told in found.items():
        told |= {name: value for name, value in biased.get(arm, {}).items() if value == value and name not in told}
    judge = {name: rows[0][name] for name in ("judge", "temperature")}
    return {**judge, "templates": sorted({row["template"] for row in rows}), "arms": found}


def score_files(judged_by: Protocol, judgements: Path | str, protocol: str = "standard") -> dict:
    """`scored` of a file of raw verdicts."""
    return scored(judged_by, counting(judged_by, judgements, protocol), protocol)


def per_item(protocol: Protocol, samples: Iterable[dict]) -> dict[str, pd.DataFrame]:
    """Points of the questions, 0 to 1, items x arms, for paired comparisons; {} where a step has no such verdicts.

    A question is one item: the mean of its turns, since the second depends on the first. An unread verdict counts as
    the lowest; a turn that some arm has no verdict of is left out. DataError where the judges differ.
    """
    rows = [one for one in samples if one.get("benchmark") == protocol.benchmark and not one.get("condition")]
    if not rows:
        return {}
    one_judge(rows)
    frame = ruled(protocol, table(protocol, rows), "lowest")
    turns = frame.pivot_table("points", ["question", "turn"], "arm", sort=False).dropna()
    return {protocol.benchmark: turns.groupby("question", sort=False).mean()}
