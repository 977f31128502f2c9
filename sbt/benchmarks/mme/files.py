"""MME's files: the publishers' folder of questions in either layout, its pictures, and folders of answers.

A line of a list `TASK.txt` is image, question, label with tabs between, and in an answers file the response too.
"""

from collections.abc import Sequence
from pathlib import Path

from sbt.benchmarks.common import answers
from sbt.benchmarks.mme import metric
from sbt.utils import paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_text, write_text

_INNER = "questions_answers_YN"  # some tasks keep their questions here, and the pictures in images/ beside it
_SUFFIXES = (".jpg", ".png", ".jpeg")
_LIST, _BESIDE, _ANSWERS = "image, question, label", "question, label", "image, question, label, response"


def load(folder: Path | str) -> list[dict]:
    """Items `task`, `image`, `question`, `label` (Yes or No) of the tasks that are there, two an image, in order.

    A task is a list `TASK.txt` (eval_tool's layout), or else a folder `TASK/` with `IMAGE.txt` beside the images, or
    with `questions_answers_YN/IMAGE.txt` and `images/` (the benchmark's). DataError names file and line at fault.
    """
    root, items = paths.resolve(str(folder)), []
    if not root.is_dir():
        raise DataError(f"{paths.shown(root)} is no folder. Give the one with MME's tasks, as existence.txt")
    for task in metric.tasks():
        if (flat := root / f"{task}.txt").is_file():
            items += _paired([_item(where, task, line.split("\t"), _LIST) for where, line in _lines(flat)], flat)
        elif (root / task).is_dir():
            items += _in_folder(root / task, task)
    if not items:
        raise DataError(f"{paths.shown(root)} holds none of MME's tasks, as existence.txt or existence/")
    return items


def _in_folder(folder: Path, task: str) -> list[dict]:
    inner = (folder / _INNER).is_dir()
    texts = (folder / _INNER if inner else folder).glob("*.txt")
    files = sorted(file for file in texts if not file.name.startswith("."))  # "._a.txt" is macOS's
    if not files:
        raise DataError(f"{paths.shown(folder)} holds no question, as IMAGE.txt or {_INNER}/IMAGE.txt")
    items = []
    for file in files:
        image = [_image(folder / "images" if inner else folder, file.stem, task)]
        found = [_item(where, task, image + line.split("\t"), _BESIDE) for where, line in _lines(file)]
        items += _paired(found, file)
    return items


def _image(folder: Path, stem: str, task: str) -> str:
    """Name of the picture of a question file; where it is not there, as the authors guess it, by the task's kind."""
    for suffix in _SUFFIXES:
        if (folder / f"{stem}{suffix}").is_file():
            return f"{stem}{suffix}"
    return f"{stem}.png" if task in metric.KINDS["cognition"] else f"{stem}.jpg"


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


def read_answers(folder: Path, protocol: str, references: Path | None = None) -> tuple[list[dict], list[str]]:
    """Items and answers of a folder of answers, TASK.txt for each task of the protocol (or of `references`).

    With `references`, a folder of questions, the lines of a task must be its questions, in any order of the images.
    DataError names file and line: of a missing task or response ("paper" takes it for "other"), a wrong label.
    """
    asked: dict[str, dict[str, dict]] = {}
    for item in load(references.absolute()) if references else []:
        asked.setdefault(item["task"], {})[_key(item)] = item
    items, responses = [], []
    for task in metric.tasks(protocol):
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
    return items, responses


def read_log(path: Path) -> tuple[list[dict], list[str]]:
    """Items and answers of a log of lmms-eval, which holds questions and labels itself. DataError names its row."""
    items, responses = [], []
    for where, row in answers.read(path):
        fields = [row.get(key) for key in ("category", "question_id", "input", "target")]
        if not all(isinstance(field, str) for field in fields) or fields[0] not in metric.tasks():
            wanted = "a row of lmms-eval's log: the input, the target, and a metric with question_id and category"
            raise DataError(f"{where}: expected {wanted}. Answers of other tools go into a folder, as existence.txt")
        items.append(_item(where, fields[0], fields[1:], _LIST))
        responses.append(answers.text((where, row)))
    return items, responses


def _key(item: dict) -> str:
    return f"{item['image']}: {item['question']}"


def _check(items: Sequence[dict], asked: dict[str, dict], name: str) -> None:
    rows = [(f"{name}:{number}", {"question": _key(item)}) for number, item in enumerate(items, start=1)]
    answers.matched(rows, "question", asked, name)
    for number, item in enumerate(items, start=1):
        if item["label"].lower() != (label := asked[_key(item)]["label"]).lower():
            raise DataError(f"{name}:{number}: label is {item['label']!r}, but that question's is {label!r}")


def _answered(where: str, task: str, line: str, protocol: str) -> tuple[dict, str]:
    fields = line.split("\t")
    if len(fields) == 3:
        if protocol != "paper":
            raise DataError(f"{where}: no response. Put a tab and the response, which may be empty, after the label")
        fields.append(metric.NO_RESPONSE)
    item = _item(where, task, fields, _ANSWERS)
    if protocol != "paper" and fields[2].lower() not in ("yes", "no"):
        raise DataError(f"{where}: label must be Yes or No without blanks, found {fields[2]!r}")
    return item, fields[3]


def write_answers(folder: Path | str, items: Sequence[dict], responses: Sequence[str]) -> list[Path]:
    """Write the publishers' answer files, TASK.txt of image, question, label, response; tabs and line ends go."""
    texts: dict[str, str] = {}
    for item, answer in zip(items, responses, strict=True):
        line = "\t".join((item["image"], item["question"], item["label"], metric.one_line(answer)))
        texts[item["task"]] = texts.get(item["task"], "") + f"{line}\n"
    return [write_text(Path(folder) / f"{task}.txt", text) for task, text in texts.items()]


def with_pictures(folder: Path | str, items: Sequence[dict]) -> list[dict]:
    """The items with `file`, the path in `folder` of the picture: TASK/IMAGE, TASK/images/IMAGE or IMAGE.

    The first of them where none is there: what is missing is for `evaluate.usable` to judge, with other bad pictures.
    Image names are unique within a task only.
    """
    root, found = paths.resolve(str(folder)), []
    for item in items:
        places = [f"{item['task']}/{item['image']}", f"{item['task']}/images/{item['image']}", item["image"]]
        found.append({**item, "file": next((place for place in places if (root / place).is_file()), places[0])})
    return found
