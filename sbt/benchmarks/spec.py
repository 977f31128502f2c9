"""The description of a benchmark. The `__init__.py` of its folder holds one `SPEC`, or several `SPECS`.

Nothing central lists benchmarks: `sbt.benchmarks.specs()` finds them. The command line, the preflight, the tables of
the report, the paired comparisons and the table in README are made from what it finds.
"""

import importlib
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from sbt.data.registry import BenchmarkFiles, Source

# What `common.answers` reads: words for the `answer_keys` of a SPEC, and what `sbt score --help` says of them.
ANSWER_FORMS, LOGS, VISION_LOGS = "in rows", "or a harness log", "or an lmms-eval log"
FORMS = {
    "rows": "a JSON list or JSON lines, the answer as answer, text, prediction or response, ids as text or number",
    "harness log": "a log of lm-evaluation-harness, by --log_samples; it holds its questions, so that the language "
    "benchmarks need no --references",
    "lmms-eval log": "a sample log of lmms-eval",
}


@dataclass(frozen=True)
class Headline:
    """A metric that the report shows: a column of one of its tables.

    `chance` is what guessing gives, None where that is not known.
    """

    subset: str
    metric: str
    title: str
    chance: float | None = None


@dataclass(frozen=True)
class Spec:
    """One benchmark. Functions are named as "module:function" and loaded when called, so that a plan needs no torch.

    name: as metric rows and `sbt score` call it. kind: "text" (asks the language model alone) or "vision" (asks
    arms that can see). table: title of the report's table. headline: its columns there. about: one sentence for
    README. task: the module, or an object in it, with `load`, `requests` and `rows`. per_item: a function that
    turns the samples of a step into {score: DataFrame of items x arms}, for paired comparisons; it gets all
    samples of the step and takes its own. asked: the parameters that say how a step asks, where its notebook also
    makes the arm that it scores; steps that agree in them are joined, and each arm counts once, from the first step.
    one_answer: a function that turns samples into {score: {arm: share}}, the share of the items that get the arm's
    commonest option: near 1 the arm judges nothing. score_files: the function behind `sbt score`. answer_keys: what an
    answer file must hold, in words. sources: parameter of the notebook -> the published files that its value "hub"
    asks for. protocols: name -> differences from the official way, each with
    its source. For estimates: items and tokens are the number of questions, and tokens of one with its answers;
    pictures: how many different ones (0: one a question); written: tokens of an answer that is written.
    """

    name: str
    title: str
    kind: str
    table: str
    headline: tuple[Headline, ...]
    about: str = ""
    notebook: str = ""
    task: str = ""
    per_item: str = ""
    asked: tuple[str, ...] = ()
    one_answer: str = ""
    score_files: str = ""
    answer_keys: str = ""
    sources: dict[str, BenchmarkFiles] = field(default_factory=dict)
    protocols: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    items: int = 0
    tokens: int = 0
    pictures: int = 0
    written: int = 0

    def load(self, what: str) -> Any:
        """What `what` ("task", "per_item", "score_files") names."""
        module, _, name = getattr(self, what).partition(":")
        return attrgetter(name)(importlib.import_module(module)) if name else importlib.import_module(module)


def language_spec(
    source: Source, title: str, about: str, headline: Headline, *, items: int, tokens: int, options: str = "",
    written: int = 0, keys: str = "", paper: tuple[tuple[str, str], ...] = (),
) -> Spec:  # fmt: skip
    """The SPEC of a benchmark of `52_language_ability`: a `common.language` task of the name of its source.

    `options` says what an item chooses from, "" where its answer is written; `keys` what else an answer file holds.
    """
    name, said = source.name, f"loglikelihoods of {options}, or answer, one of them" if options else "answer"
    task = f"sbt.benchmarks.{name}.task:{name.upper()}"
    return Spec(
        name, title, "text", "Language ability", (headline,), about, "52_language_ability", task,
        per_item=f"{task}.item_scores", score_files=f"{task}.score_files",
        answer_keys=f"{said}{keys}, by id or one a question in their order; {ANSWER_FORMS}; {LOGS}",
        sources={f"sources.{name}": BenchmarkFiles(source)}, protocols={"standard": (), "paper": paper},
        items=items, tokens=tokens, written=written,
    )  # fmt: skip


def module_spec(
    name: str, title: str, about: str, *headline: Headline, notebook: str, keys: str,
    paper: tuple[tuple[str, str], ...], kind: str = "vision", table: str = "Vision", **given: Any,
) -> Spec:  # fmt: skip
    """The SPEC of a benchmark whose functions stand in the module `task` of its folder.

    `keys` is what an answer file holds, `given` are sources, items and tokens.
    """
    task, protocols = f"sbt.benchmarks.{name}.task", {"standard": (), "paper": paper}
    return Spec(
        name, title, kind, table, headline, about, notebook, task, per_item=f"{task}:per_item",
        score_files=f"{task}:score_files", answer_keys=keys, protocols=protocols, **given,
    )  # fmt: skip


def judged_spec(
    name: str, title: str, kind: str, about: str, *headline: Headline, raw: str, **given: Any
) -> Spec:
    """The SPEC of a benchmark whose answers a judge reads, with a `PROTOCOL` in its module `task`: see `module_spec`.

    `raw` says in which form of the publishers `sbt score` takes verdicts, beside this project's own.
    """
    keys = f"with --judgements: raw verdicts, as a step's samples.jsonl holds them, or {raw}"
    table = "Instruction following" if kind == "text" else "Visual chat"
    return module_spec(name, title, about, *headline, keys=keys, kind=kind, table=table, **given)
