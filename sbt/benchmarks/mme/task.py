"""MME: two yes/no questions a picture, 14 tasks of perception and cognition (Fu et al. 2023).

Protocol "standard" is the publishers' calculation.py (BradyFU/Awesome-Multimodal-Large-Language-Models:
tools/eval_tool.zip@1c1d69e), "paper" the authors' metric, of 12 tasks (UCSC-VLAA/Sight-Beyond-Text:
llava/eval/mmoverall/mme_metric.py@47f96a3). `SPEC.protocols` says where they part. A line of a list `TASK.txt` is
image, question, label with tabs between, and in an answers file the response too.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import answers as answer_files
from sbt.benchmarks.common import controls
from sbt.benchmarks.mme import SPEC
from sbt.report import stats
from sbt.utils import paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_text

KINDS = {
    "perception": (
        "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"
    ),
    "cognition": ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
}  # fmt: skip
LEFT_OUT = ("landmark", "artwork")  # by the authors: perception is 8 tasks (at most 1600), not 10 (2000)
NO_RESPONSE = "other"  # what the authors put where a line has no response
METRICS = ("acc", "acc_plus", "score", "yes_ratio", "unparsed_ratio", "empty_ratio")
_POINTS = np.array([0.0, 50.0, 200.0])  # of a picture with none, one or both questions right: acc and acc_plus, x100
_INNER = "questions_answers_YN"  # some tasks keep their questions here, and the pictures in images/ beside it
_LIST, _BESIDE, _ANSWERS = "image, question, label", "question, label", "image, question, label, response"


def tasks(protocol: str = "standard") -> tuple[str, ...]:
    """Names of the tasks a protocol scores, in the publishers' order: 14, or 12 for "paper"."""
    return tuple(name for names in KINDS.values() for name in names if protocol != "paper" or name not in LEFT_OUT)


def load(folder: Path | str) -> list[dict]:
    """Items `task`, `image`, `question`, `label` (Yes or No) of the tasks that are there, two an image, in order.

    A task is a list `TASK.txt` (eval_tool's layout), or else a folder `TASK/` with `IMAGE.txt` beside the images, or
    with `questions_answers_YN/IMAGE.txt` and `images/` (the benchmark's). DataError names file and line at fault.
    """
    root, items = paths.resolve(str(folder)), []
    if not root.is_dir():
        raise DataError(f"{paths.shown(root)} is no folder. Give the one with MME's tasks, as existence.txt")
    for task in tasks():
        if (flat := root / f"{task}.txt").is_file():
            items += _paired([_item(where, task, line.split("\t"), _LIST) for where, line in _lines(flat)], flat)
        elif (root / task).is_dir():
            items += _in_folder(root / task, task)
    if not items:
        raise DataError(f"{paths.shown(root)} holds none of MME's tasks, as existence.txt or existence/")
    return items


def _in_folder(folder: Path, task: str) -> list[dict]:
    inner = (folder / _INNER).is_dir()
    pictures, items = folder / "images" if inner else folder, []
    files = sorted((folder / _INNER if inner else folder).glob("[!.]*.txt"))  # "._a.txt" is macOS's
    if not files:
        raise DataError(f"{paths.shown(folder)} holds no question, as IMAGE.txt or {_INNER}/IMAGE.txt")
    for file in files:
        # where the picture is not there, its name is what the authors guess by the task's kind
        names = [f"{file.stem}{suffix}" for suffix in (".jpg", ".png", ".jpeg")]
        guess = names[task in KINDS["cognition"]]
        image = [next((name for name in names if (pictures / name).is_file()), guess)]
        items += _paired([_item(where, task, image + line.split("\t"), _BESIDE) for where, line in _lines(file)], file)
    return items


def _lines(file: Path) -> list[tuple[str, str]]:
    """(`FILE:NUMBER`, line) of every line."""
    lines = read_text(file).removesuffix("\n").split("\n")
    return [(f"{paths.shown(file)}:{number}", line) for number, line in enumerate(lines, start=1)]


def _item(where: str, task: str, fields: list[str], form: str) -> dict:
    """The item of a line; `form` says what such a line should hold, the image being known where it is not in it."""
    if len(fields) != (4 if form == _ANSWERS else 3) or not all(field.strip() for field in fields[:2]):
        found = "\t".join(fields[form == _BESIDE :])
        raise DataError(f"{where}: expected {form} with tabs between, found {found[:80]!r}")
    if fields[2].strip().lower() not in ("yes", "no"):
        raise DataError(f"{where}: label must be Yes or No, found {fields[2]!r}")
    return {"task": task, "image": fields[0].strip(), "question": fields[1].strip(), "label": fields[2].strip()}


def _paired(items: list[dict], file: Path) -> list[dict]:
    """The items of a file, one a line, if every two of them are about one image that stands nowhere else in it."""
    name, seen = paths.shown(file), {}
    for number in range(1, len(items) + 1, 2):
        pair = items[number - 1 : number + 1]
        image = pair[0]["image"]
        if image in seen:
            raise DataError(f"{name}:{number}: image {image!r} has its two questions in line {seen[image]} already")
        if len(pair) == 1 or pair[1]["image"] != image:
            raise DataError(f"{name}:{number}: image {image!r} has one question. Give it two, in lines side by side")
        if pair[0]["question"] == pair[1]["question"]:
            raise DataError(f"{name}:{number + 1}: line {number} asks the same of image {image!r}. Keep one")
        seen[image] = number
    return items


def with_pictures(folder: Path | str, items: Sequence[dict]) -> list[dict]:
    """The items with `file`, the path in `folder` of the picture: TASK/IMAGE, TASK/images/IMAGE or IMAGE.

    The first of them where none is there: `evaluate.keep_usable` judges what is missing, with other bad pictures.
    Image names are unique within a task only.
    """
    root, found = paths.resolve(str(folder)), []
    for item in items:
        places = [f"{item['task']}/{item['image']}", f"{item['task']}/images/{item['image']}", item["image"]]
        found.append({**item, "file": next((place for place in places if (root / place).is_file()), places[0])})
    return found


def counts(items: Sequence[dict]) -> dict[str, dict[str, int]]:
    """By task, how much there is: questions, different pictures, questions whose answer is yes."""
    asked = {task: [item for item in items if item["task"] == task] for task in tasks()}
    return {task: controls.counts(own) for task, own in asked.items() if own}


def prompt(item: dict, protocol: str = "standard") -> str:
    """The question as it stands in the file."""
    return item["question"]


def _one_line(answer: str) -> str:
    """The answer as an answer file can hold it: without tabs and line ends, which the publishers ask to delete."""
    return answer.translate(dict.fromkeys(map(ord, "\t\r\n")))


def parse(answer: str, protocol: str = "standard") -> str:
    """An answer as "yes", "no" or "other": what its first four characters hold in lower case, "yes" first.

    Parts of words count: "eyes" is yes, "Now" is no. "paper" strips blanks first.
    """
    start = _one_line(answer).lower()
    start = (start.strip() if protocol == "paper" else start)[:4]
    return next((word for word in ("yes", "no") if word in start), "other")


def hits(labels: Sequence[str], parsed: Sequence[str]) -> list[int]:
    """How many of a picture's two questions are right, 0 to 2, a picture; its questions stand side by side.

    `labels` are yes or no in any case. ValueError unless there are as many answers, and an even number of them.
    """
    if len(labels) != len(parsed) or len(labels) % 2 or not labels:
        raise ValueError(f"{len(parsed)} answers for {len(labels)} labels: two questions a picture")
    right = [label.strip().lower() == said for label, said in zip(labels, parsed, strict=True)]
    return [sum(right[start : start + 2]) for start in range(0, len(right), 2)]


def task_scores(hits: Sequence[int]) -> dict[str, float]:
    """`acc` (share of the questions), `acc_plus` (share of the pictures with both right), `score`, 0 to 200."""
    acc, acc_plus = sum(hits) / (2 * len(hits)), hits.count(2) / len(hits)
    return {"acc": acc, "acc_plus": acc_plus, "score": acc * 100 + acc_plus * 100}


def measures(labels: Sequence[str], answers: Sequence[str], protocol: str = "standard") -> dict[str, list]:
    """What each question or each picture gives to the METRICS of its task, which are the means; and `hits`.

    One value a picture in acc_plus (both right) and score (0, 50 or 200), one a question in the others.
    """
    said = [parse(answer, protocol) for answer in answers]
    found = hits(labels, said)
    values = (
        [label.strip().lower() == word for label, word in zip(labels, said, strict=True)],
        [one == 2 for one in found],
        _POINTS[found].tolist(),
        [word == "yes" for word in said],
        [word == "other" for word in said],
        [not answer.strip() for answer in answers],
    )
    return {**dict(zip(METRICS, values, strict=True)), "hits": found}


def total(by_task: Sequence[Sequence[int]], seed: int = 0, resamples: int = stats.RESAMPLES) -> stats.Interval:
    """Sum of the tasks' scores with its 95 % interval, resampling pictures within each task; `hits` of each task."""
    rng, value, drawn = np.random.default_rng(seed), 0.0, np.zeros(resamples)
    for found in by_task:
        counts = np.bincount(np.asarray(found, int), minlength=3)
        value += float(counts @ _POINTS) / len(found)
        drawn += rng.multinomial(len(found), counts / len(found), resamples) @ _POINTS / len(found)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return value, float(low), float(high)


def _by_task(items: Sequence[dict], answers: Sequence[str], protocol: str) -> dict[str, list[tuple[dict, str]]]:
    """Items and answers of each task that the protocol scores, the two questions about a picture side by side."""
    check_protocol(protocol, SPEC.protocols)
    found: dict[str, dict[str, list]] = {task: {} for task in tasks(protocol)}
    for item, answer in zip(items, answers, strict=True):
        if item["task"] in found:
            found[item["task"]].setdefault(item["image"], []).append((item, answer))
    for task, images in found.items():
        for image, pair in images.items():
            if len(pair) != 2:
                raise DataError(f"MME, {task}: {len(pair)} questions about {image!r}. Keep both that go together")
    return {task: [one for pair in images.values() for one in pair] for task, images in found.items() if images}


def score(items: Sequence[dict], answers: Sequence[str], protocol: str = "standard") -> dict:
    """{"perception", "cognition", "tasks": {name: {"acc", "acc_plus", "score"}}}; the sums are over the tasks there.

    DataError where an image has other than two questions.
    """
    found = {}
    for task, pairs in _by_task(items, answers, protocol).items():
        parsed = [parse(answer, protocol) for _, answer in pairs]
        found[task] = task_scores(hits([item["label"] for item, _ in pairs], parsed))
    sums = {kind: sum(found[name]["score"] for name in names if name in found) for kind, names in KINDS.items()}
    return {**{kind: float(total) for kind, total in sums.items()}, "tasks": found}


def rows(
    items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str = "real", seed: int = 0,
    protocol: str = "standard", **same,
) -> list[dict]:  # fmt: skip
    """Metric rows with 95 % intervals, resampling pictures: METRICS by task, and the score of each kind of tasks.

    `acc` and the ratios are shares of the questions, `acc_plus` of the pictures. Their subsets are the tasks' names,
    with the given one behind them unless that is "real".
    """
    found, by_task, same = [], {}, {"protocol": protocol, **same}
    for task, pairs in _by_task(items, answers, protocol).items():
        values = measures([item["label"] for item, _ in pairs], [answer for _, answer in pairs], protocol)
        images, by_task[task] = [item["image"] for item, _ in pairs], values.pop("hits")
        named = {"arm": arm, "benchmark": "mme", "subset": controls.subset(task, subset), "seed": seed, **same}
        for name, scored in values.items():
            groups = images if len(scored) == len(images) else None
            found.append(stats.metric_row(scored, groups=groups, metric=name, **named))
    for kind, names in KINDS.items():
        if there := [by_task[name] for name in names if name in by_task]:
            value, low, high = total(there, seed)
            named = {"arm": arm, "benchmark": "mme", "subset": controls.subset(kind, subset), "metric": "score"}
            measured = {"value": value, "low": low, "high": high, "n": sum(map(len, there))}
            found.append({**named, **measured, **same})
    return found


def samples(items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str = "real",
            protocol: str = "standard") -> list[dict]:  # fmt: skip
    """One record an item: what was asked, what was said, what it is taken for, whether it is right."""
    return [
        {"arm": arm, "subset": controls.subset(item["task"], subset), "image": item.get("file", item["image"])}
        | {"prompt": prompt(item), "label": item["label"], "answer": answer}
        | {"parsed": (said := parse(answer, protocol))}
        | {"correct": said == item["label"].lower(), "unparsed": said == "other", "empty": not answer.strip()}
        for item, answer in zip(items, answers, strict=True)
    ]


def per_item(samples: Sequence[dict]) -> dict[str, pd.DataFrame]:
    """Scores of the items about the right picture, items x arms, for paired comparisons."""
    return {"MME": controls.by_item(samples, "correct")}


def score_files(answers: Path | str, references: Path | str | None = None, protocol: str = "standard") -> dict:
    """`score` of a folder of answers in the publishers' form, TASK.txt; `references` is the folder of the questions.

    With `references` every line must be one of its questions, and its tasks suffice; without, all tasks must be there.
    A log of lmms-eval is a file, and holds the questions itself. DataError names file and line: of a missing task or
    response ("paper" takes it for "other"), a wrong label.
    """
    check_protocol(protocol, SPEC.protocols)
    folder = Path(answers).absolute()
    if folder.suffix in (".json", ".jsonl") and not references:
        return score(*_read_log(folder), protocol)
    if not folder.is_dir():
        raise DataError(f"{answers} is no folder. Give the one with the answers of every task, as existence.txt")
    asked: dict[str, dict[str, dict]] = {}
    for item in load(Path(references).absolute()) if references else []:
        asked.setdefault(item["task"], {})[_key(item)] = item
    items, responses = [], []
    for task in tasks(protocol):
        file = folder / f"{task}.txt"
        if references and task not in asked:
            if file.is_file():
                raise DataError(f"{paths.shown(file)}: {paths.shown(references)} has no questions of this task")
            continue
        pairs = [_answered(where, task, line, protocol) for where, line in _lines(file)]
        found = _paired([item for item, _ in pairs], file)
        if references:
            _check(found, asked[task], paths.shown(file))
        items += found
        responses += [response for _, response in pairs]
    return score(items, responses, protocol)


def _read_log(path: Path) -> tuple[list[dict], list[str]]:
    items, responses = [], []
    for where, row in answer_files.read(path):
        fields = [row.get(key) for key in ("category", "question_id", "input", "target")]
        if not all(isinstance(field, str) for field in fields) or fields[0] not in tasks():
            wanted = "a row of lmms-eval's log: the input, the target, and a metric with question_id and category"
            raise DataError(f"{where}: expected {wanted}. Answers of other tools go into a folder, as existence.txt")
        items.append(_item(where, fields[0], fields[1:], _LIST))
        responses.append(answer_files.text((where, row)))
    return items, responses


def _key(item: dict) -> str:
    return f"{item['image']}: {item['question']}"


def _check(items: Sequence[dict], asked: dict[str, dict], name: str) -> None:
    rows = [(f"{name}:{number}", {"question": _key(item)}) for number, item in enumerate(items, start=1)]
    answer_files.matched(rows, "question", asked, name)
    for (where, _), item in zip(rows, items, strict=True):
        if item["label"].lower() != (label := asked[_key(item)]["label"]).lower():
            raise DataError(f"{where}: label is {item['label']!r}, but that question's is {label!r}")


def _answered(where: str, task: str, line: str, protocol: str) -> tuple[dict, str]:
    fields = line.split("\t")
    if len(fields) == 3:
        if protocol != "paper":
            raise DataError(f"{where}: no response. Put a tab and the response, which may be empty, after the label")
        fields.append(NO_RESPONSE)
    item = _item(where, task, fields, _ANSWERS)
    if protocol != "paper" and fields[2].lower() not in ("yes", "no"):
        raise DataError(f"{where}: label must be Yes or No without blanks, found {fields[2]!r}")
    return item, fields[3]
