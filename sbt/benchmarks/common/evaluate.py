"""Evaluate a vision benchmark: ask every arm, with the right picture, with another one and with none, and score.

found = evaluate_vision(pope, {"random": items}, arms, folder, run.path("scratch/answers"))
run.finish(found.rows, found.samples)

A benchmark's task is a module (or any object) with

    prompt(item, protocol) -> str
    rows(items, answers, *, arm, subset, protocol, seed, template_hash) -> metric rows
    samples(items, answers, *, arm, subset, protocol) -> one record an item

and perhaps `subset(part, condition)`. An item is a dict with `image`, the picture's file name (or `file`, its path,
where several pictures share a name), and perhaps `demonstrations`, turns of (question, answer) without a picture.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from sbt import benchmarks, models
from sbt.benchmarks.common import controls
from sbt.benchmarks.common.protocol import PAPER, Decoding, decoding
from sbt.benchmarks.spec import Spec
from sbt.data import benchmark_files, images
from sbt.inference import generation
from sbt.report import tables
from sbt.study.runs import Run
from sbt.utils import paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import sha256

Parts = Mapping[str, Sequence[dict]]  # items by the part of the benchmark: a split, a task, a data set
Progress = Callable[[int, int], None] | None


def seeing_arms(run: Run) -> dict[str, str]:
    """Name -> folder of the study's arms that can see, those that the run's parameters `arms` and `arm_steps` name."""
    folders, p = run.upstreams(*run.p.arm_steps).values(), run.p
    return models.list_arms(folders, p.arms, vision=True, study=p.study, steps=p.arm_steps)


def question_files(run: Run, spec: Spec, parameter: str, world: str) -> Path:
    """Where the questions are: what the parameter names, the published ones where it is "hub", else the micro-world's.

    `world` is the micro-world's file or folder in the folder of the data step.
    """
    given = benchmark_files.questions(spec.sources[parameter], getattr(run.p, parameter), run.progress)
    return paths.resolve(str(given)) if given else run.upstream(run.p.data) / world


def picture_folder(
    run: Run, spec: Spec, parameter: str, parts: Parts, *, images: str | None = None, beside: bool = False
) -> Path:
    """The folder of the pictures of questions that `parameter` named, as `question_files` takes it.

    It is what `images` names (None: the parameter of that name), or the published pictures for "hub". Without it, the
    micro-world's questions have the micro-world's; published ones may have theirs `beside` them.
    ParameterError where other questions are named without their pictures.
    """
    given, images = getattr(run.p, parameter), run.p.images if images is None else images
    published, names = spec.sources[parameter], {part: [file_of(item) for item in parts[part]] for part in parts}
    if not isinstance(published.pictures, Mapping):
        names = [name for part in names.values() for name in part]
    if found := benchmark_files.pictures(published, given, images, names, run.progress):
        return paths.resolve(str(found))
    if given and not beside:
        raise ParameterError(f"{parameter} is set, images is not: set it to the folder with the pictures, or to hub")
    return paths.resolve(str(given)) if given else run.upstream(run.p.data) / "images"


def keep_usable(run: Run, folder: Path, parts: Parts) -> dict[str, list[dict]]:
    """The parts without the items whose picture cannot be used; prints how many can, and why others cannot.

    Every file is decoded once, before an arm is loaded. DataError counts and names the bad ones where the run's
    parameter `on_bad` is "stop", or where none is good; "skip" leaves them out.
    """
    names = {folder / name: name for name in sorted({file_of(item) for items in parts.values() for item in items})}
    report = images.check(names, progress=run.progress)
    good, bad = images.settle(report, run.p.on_bad)
    print(f"{len(good)} pictures can be used, {len(bad)} cannot; {_noted(report, names)}")
    if bad:
        rows = [(names[problem.path], problem.kind, problem.reason) for problem in bad]
        print(pd.DataFrame(rows, columns=["picture", "kind", "reason"]).to_string(index=False))
    kept = {names[file] for file in good}
    return {part: [item for item in items if file_of(item) in kept] for part, items in parts.items()}


def _noted(report: images.Report, names: Mapping[Path, str]) -> str:
    """What is unusual in the good pictures, counted, the first ones named: "2 cmyk (a.jpg, b.jpg)".

    CMYK, 16 bits and transparency are converted as `data.images.to_rgb` says; the others are taken as they are.
    """
    notes = []
    for kind in images.NOTED:
        found = [names[file] for file, kinds in report.noted.items() if kind in kinds]
        more = ", ..." if len(found) > images.NAMED else ""
        if found:
            notes.append(f"{len(found)} {kind} ({', '.join(found[: images.NAMED])}{more})")
    return ", ".join(notes) or "nothing unusual"


def file_of(item: Mapping) -> str:
    """Path of an item's picture in the folder of the pictures."""
    return item.get("file", item["image"])


@dataclass(frozen=True)
class Questions:
    """Questions that are asked together, in the same batches: of `task` about the pictures in `folder`.

    A question that is asked twice about one picture is answered once. `cache` keeps finished answers.
    """

    task: Any
    items: Sequence[dict]
    folder: Path
    cache: Path
    protocol: str
    decoding: Decoding
    batch_size: int = 64
    seed: int = 0
    progress: Progress = None

    def answers(self, name: str, arm: models.Arm, condition: str) -> list[str]:
        """The arm's answers in the order of the items, about the pictures that `condition` shows."""
        pictures = controls.shown(self.folder, [file_of(item) for item in self.items], condition, self.seed)
        requests = [self._request(item, pictures) for item in self.items]
        distinct = {request["id"]: request for request in requests}
        cache = self.cache / self.protocol / f"{name}-{condition}.jsonl"
        size = {"decoding": self.decoding, "batch_size": self.batch_size, "progress": self.progress}
        said = generation.generate(arm, list(distinct.values()), cache=cache, **size)
        known = dict(zip(distinct, said, strict=True))
        return [known[request["id"]] for request in requests]

    def _request(self, item: dict, pictures: Mapping[str, object]) -> dict:
        file, text = file_of(item), self.task.prompt(item, self.protocol)
        shots = tuple(map(tuple, item.get("demonstrations", ())))
        name = f"{file}|{text}" + (f"|{sha256(repr(shots))[:12]}" if shots else "")
        return {"id": name, "image": pictures[file], "text": text, "demonstrations": shots}


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_vision` found: metric rows, one record a scored item, and the answers.

    `answers` by (protocol, part, arm, condition), in the order of the items. `protocol` is the first one.
    """

    rows: list[dict] = field(default_factory=list)
    samples: list[dict] = field(default_factory=list)
    answers: dict[tuple[str, str, str, str], list[str]] = field(default_factory=dict)

    @property
    def protocol(self) -> str:
        """The first protocol, which is also asked about other pictures and about none."""
        return next(iter(self.answers))[0]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The metric rows with the `task` and the `condition` that make up their subset."""
        return controls.split(pd.DataFrame(self.rows))

    def about(self, part: str, protocol: str = "", condition: str = "real") -> dict[str, list[str]]:
        """Answers about one part, by arm; under the first protocol unless another is named."""
        wanted = protocol or self.protocol, part, condition
        return {arm: said for (p, name, arm, shown), said in self.answers.items() if (p, name, shown) == wanted}

    def real_samples(self, protocol: str = "") -> pd.DataFrame:
        """The samples about the right picture, of one protocol or of all."""
        frame = controls.split(pd.DataFrame(self.samples))
        return frame[(frame.condition == "real") & (frame.protocol.eq(protocol) if protocol else True)]

    def of(self, metric: str, tasks: Iterable[str] | None = None, condition: str = "") -> pd.DataFrame:
        """Rows of one metric under the first protocol, of some tasks or all, under one condition or all."""
        rows = self.table[(self.table.metric == metric) & (self.table.protocol == self.protocol)]
        rows = rows if tasks is None else rows[rows.task.isin(list(tasks))]
        return rows[rows.condition == condition] if condition else rows

    def scores(
        self, index: str | list[str], columns: str | list[str] = "arm", *, metrics: Sequence[str] = (),
        but: Sequence[str] = (), tasks: str = "", every: bool = False, digits: int = 2,
    ) -> pd.DataFrame:  # fmt: skip
        """Scores about the right picture, or under `every` condition, in cells "value [low, high]".

        Of some `metrics` or all `but` some; of the tasks that match the regular expression `tasks`.
        """
        rows = self.table[self.table.low.notna() & ~self.table.metric.isin(but)]
        rows = rows[rows.metric.isin(metrics)] if metrics else rows
        rows = rows[rows.task.str.fullmatch(tasks)] if tasks else rows
        return tables.grid(rows if every else rows[rows.condition == "real"], index, columns, digits)

    def shares(self, *metrics: str) -> HTML:
        """Metrics that are shares of the answers about the right picture (yes, unparsed, empty), by arm."""
        rows = self.table[(self.table.condition == "real") & self.table.metric.isin(metrics)]
        rows = rows.assign(share=rows.metric.str.removesuffix("_ratio")).sort_values("share", kind="stable")
        wide = rows.pivot_table("value", ["subset", "protocol"], ["share", "arm"], sort=False)
        return tables.page(wide.map("{:.2f}".format, na_action="ignore"))

    def looks(self, metric: str, levels: Mapping[str, float], digits: int = 2) -> pd.DataFrame:
        """Does each arm look? `controls.compared` with the blind `levels` by task; prints the verdicts."""
        table = controls.compared(self.of(metric, levels), levels, digits)
        for line in controls.verdicts(table).splitlines():
            print(textwrap.fill(line, 100, subsequent_indent="    ", break_on_hyphens=False))
        return table.astype({"left": object}).fillna("–")

    def answer(self, looks: pd.DataFrame) -> str:
        """How many tasks each arm is shown to see in, in one sentence, from the table of `looks`."""
        counts = looks["sees"].astype(bool).groupby(level="arm", sort=False).agg(["sum", "size"])
        found = "; ".join(f"{arm} in {sees} of {tasks} parts" for arm, sees, tasks in counts.itertuples())
        return f"Shown to look, above guessing and above other pictures and none: {found}"

    def figure(self, metric: str, title: str, levels: Mapping[str, float]) -> Figure:
        """Scores under each condition, by task, with the blind `levels` dotted."""
        return controls.figure(self.of(metric, levels), title, levels)

    def check_counts(self) -> None:
        """Assert that every arm answered every question of a part, and that each metric row counts some of them."""
        sizes = {(protocol, part): set() for protocol, part, *_ in self.answers}
        for (protocol, part, *_), said in self.answers.items():
            sizes[protocol, part].add(len(said))
        assert all(len(counts) == 1 and 0 not in counts for counts in sizes.values()), f"answers are missing: {sizes}"
        most = {protocol: sum(max(sizes[key]) for key in sizes if key[0] == protocol) for protocol, _ in sizes}
        assert all(0 < row["n"] <= most[row["protocol"]] for row in self.rows), "a metric row counts other questions"


def evaluate_vision(
    task: Any, parts: Parts, arms: Mapping[str, str], folder: Path | Mapping[str, Path], caches: Path, *,
    protocols: Sequence[str] = ("standard",), asked: Mapping[str, Parts] | None = None,
    conditions: Sequence[str] = controls.CONDITIONS, together: bool = True, paper: Decoding = PAPER,
    max_new_tokens: int = 16, batch_size: int = 64, seed: int = 0, progress: Progress = None,
) -> Evaluation:  # fmt: skip
    """Ask every arm the items of every part under every protocol, and score the answers.

    `arms`: name -> folder. `folder` holds the pictures, or is one folder a part. The first protocol is asked under all
    `conditions`, the others about the right picture only. `asked` replaces `parts` for the protocols that it names.
    Protocol "standard" decodes greedily with `max_new_tokens`, "paper" as `paper` says. `together` puts the questions
    of all parts into the same batches, so that those that stand in several parts are answered once. Finished answers
    are kept in `caches`: a killed run goes on. Each arm is loaded once. ParameterError for an unknown protocol or no
    protocol; DataError for a part without items.
    """
    if not protocols:
        raise ParameterError("protocols is empty: name one or more")
    how = {"batch_size": batch_size, "seed": seed, "progress": progress}
    given = {protocol: (asked or {}).get(protocol, parts) for protocol in protocols}
    groups: list[tuple[str, Parts, Questions]] = []
    for protocol, items in given.items():
        written = decoding(protocol, max_new_tokens, paper=paper)
        if empty := [part for part in items if not items[part]]:
            raise DataError(f"no question is left of {', '.join(empty) or 'the benchmark'} under protocol {protocol}")
        for group in [items] if together and isinstance(folder, Path) else [{part: items[part]} for part in items]:
            (first, *_), every = group, [item for part in group.values() for item in part]
            place = folder if isinstance(folder, Path) else folder[first]
            cache = caches / ("" if len(group) > 1 else first)
            groups.append((protocol, group, Questions(task, every, place, cache, protocol, written, **how)))
    answers, styles = {}, {protocol: {} for protocol in protocols}
    for name, arm in models.load_vision_models(arms):
        for protocol, group, questions in groups:
            styles[protocol][name] = questions.decoding.conversation or arm.conversation
            for condition in conditions if protocol == protocols[0] else ("real",):
                said = iter(questions.answers(name, arm, condition))
                for part, items in group.items():
                    answers[protocol, part, name, condition] = [next(said) for _ in items]
    return _scored(task, given, answers, styles, seed)


def _scored(task: Any, given: Mapping[str, Parts], answers: dict, styles: Mapping, seed: int) -> Evaluation:
    found, subset = Evaluation(), getattr(task, "subset", controls.subset)
    origin = {protocol: benchmarks.provenance(protocol, of) for protocol, of in styles.items()}
    order = [(protocol, part) for protocol in given for part in given[protocol]]
    for key in sorted(answers, key=lambda key: order.index(key[:2])):  # arms and conditions stay as they were asked
        (protocol, part, arm, condition), said = key, answers[key]
        named, items = {"arm": arm, "subset": subset(part, condition)}, given[protocol][part]
        found.answers[key] = said
        found.rows.extend(task.rows(items, said, seed=seed, **named, **origin[protocol][arm]))
        records = task.samples(items, said, protocol=protocol, **named)
        found.samples.extend({**record, "protocol": protocol} for record in records)
    return found
