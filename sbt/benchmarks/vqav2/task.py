"""VQAv2 (Goyal et al. 2017): open questions about COCO val2014, ten annotators' answers each.

Protocol "standard": every question, a short answer asked for, official accuracy, with the official code's regular
expressions as they behave (GT-Vision-Lab/VQA@a013f00: PythonEvaluationTools/vqaEvaluation/vqaEval.py, Python 2, here
under Python 3). Protocol "paper": what the authors' code does (UCSC-VLAA/Sight-Beyond-Text@47f96a3:
llava/eval/mmoverall): 5,000 questions of seed 42, three text-only demonstrations, the bare question, and answers made
"Yes" or "No", which misses every unanimous yes/no question.
"""

import random
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import answers as answer_files
from sbt.benchmarks.common import controls
from sbt.benchmarks.vqav2 import OFFICIAL, SPEC
from sbt.data.registry import HUB
from sbt.report import stats
from sbt.utils import checks, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import read_json

IMAGE = "COCO_val2014_%012d.jpg"
SHORT = "Answer the question using a single word or phrase."  # LLaVA-1.5's (arXiv 2310.03744)
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
TYPES = ("answer_type", "question_type")
ARTICLES = ("a", "an", "the")
NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
           "seven": "7", "eight": "8", "nine": "9", "ten": "10"}  # fmt: skip
# Found, written instead, in turn. As they are: four can never match a lower-cased word (Im, Ive, Id've, I'dve), and
# "somebody'd" loses its apostrophe.
_PAIRS = """
    aint ain't  arent aren't  cant can't  couldve could've  couldnt couldn't  couldn'tve couldn't've
    couldnt've couldn't've  didnt didn't  doesnt doesn't  dont don't  hadnt hadn't  hadnt've hadn't've
    hadn'tve hadn't've  hasnt hasn't  havent haven't  hed he'd  hed've he'd've  he'dve he'd've  hes he's  howd how'd
    howll how'll  hows how's  Id've I'd've  I'dve I'd've  Im I'm  Ive I've  isnt isn't  itd it'd  itd've it'd've
    it'dve it'd've  itll it'll  let's let's  maam ma'am  mightnt mightn't  mightnt've mightn't've
    mightn'tve mightn't've  mightve might've  mustnt mustn't  mustve must've  neednt needn't  notve not've
    oclock o'clock  oughtnt oughtn't  ow's'at 'ow's'at  'ows'at 'ow's'at  'ow'sat 'ow's'at  shant shan't
    shed've she'd've  she'dve she'd've  she's she's  shouldve should've  shouldnt shouldn't  shouldnt've shouldn't've
    shouldn'tve shouldn't've  somebody'd somebodyd  somebodyd've somebody'd've  somebody'dve somebody'd've
    somebodyll somebody'll  somebodys somebody's  someoned someone'd  someoned've someone'd've
    someone'dve someone'd've  someonell someone'll  someones someone's  somethingd something'd
    somethingd've something'd've  something'dve something'd've  somethingll something'll  thats that's
    thered there'd  thered've there'd've  there'dve there'd've  therere there're  theres there's  theyd they'd
    theyd've they'd've  they'dve they'd've  theyll they'll  theyre they're  theyve they've  twas 'twas  wasnt wasn't
    wed've we'd've  we'dve we'd've  weve we've  werent weren't  whatll what'll  whatre what're  whats what's
    whatve what've  whens when's  whered where'd  wheres where's  whereve where've  whod who'd  whod've who'd've
    who'dve who'd've  wholl who'll  whos who's  whove who've  whyll why'll  whyre why're  whys why's  wont won't
    wouldve would've  wouldnt wouldn't  wouldnt've wouldn't've  wouldn'tve wouldn't've  yall y'all  yall'll y'all'll
    y'allll y'all'll  yall'd've y'all'd've  y'alld've y'all'd've  y'all'dve y'all'd've  youd you'd  youd've you'd've
    you'dve you'd've  youll you'll  youre you're  youve you've
"""
CONTRACTIONS = dict(zip(_PAIRS.split()[::2], _PAIRS.split()[1::2], strict=True))


def files(questions: Path | str, annotations: Path | str = "") -> tuple[Path, Path]:
    """The two files: those named, or of a folder val2014's official ones, else questions.json and annotations.json.

    DataError where a folder has no questions, or a file of questions is named without its annotations.
    """
    folder = paths.resolve(str(questions))
    annotations = "" if annotations == HUB else annotations  # they lie beside the hub's questions
    if not folder.is_dir():
        if not str(annotations):
            told = "set `annotations` to the file with the answers to these questions"
            raise DataError(f"{paths.shown(folder)}: {told}")
        return folder, paths.resolve(str(annotations))
    for asked, answered in OFFICIAL:
        if (folder / asked).is_file():
            return folder / asked, paths.resolve(str(annotations)) if str(annotations) else folder / answered
    names = " nor ".join(asked for asked, _ in OFFICIAL)
    raise DataError(f"{paths.shown(folder)} holds neither {names}. Name the file")


def load(questions: Path | str, annotations: Path | str, image: str = IMAGE) -> list[dict]:
    """Items in the order of the question file: the fields of both files, and `image`, the picture's file name.

    Rows belong together by `question_id`. By position, as the paper's authors pair them (UCSC-VLAA/Sight-Beyond-Text:
    llava/eval/mmoverall/eval_datasets.py@47f96a3), one file in another order, or cut, gives every question the answers
    of another without a word. `image` makes the name of an `image_id`. DataError names file and row.
    """
    questions, annotations = paths.resolve(str(questions)), paths.resolve(str(annotations))
    name, other = paths.shown(questions), paths.shown(annotations)
    rows = _rows(questions, "questions", ("question",))
    asked, answered = {row["question_id"] for row in rows}, {}
    for number, row in enumerate(read_annotations(annotations), start=1):
        where = f"{other}, row {number}: question_id {row['question_id']!r}"
        if row["question_id"] not in asked:
            raise DataError(f"{where} is not in {name}. Give the two files of one split")
        if not isinstance(row.get("multiple_choice_answer"), str):
            raise DataError(f"{where} has no text in multiple_choice_answer")
        answered[row["question_id"]] = row
    items = []
    for number, row in enumerate(rows, start=1):
        where, key, picture = f"{name}, row {number}", row["question_id"], row.get("image_id")
        if key not in answered:
            raise DataError(f"{where}: question_id {key!r} is not in {other}. Give the two files of one split")
        if type(picture) is not int or picture < 0:
            raise DataError(f"{where}: image_id must be a whole number, found {picture!r}")
        if answered[key].get("image_id") != picture:
            raise DataError(f"{where}: image_id is {picture!r}, in {other} {answered[key].get('image_id')!r}")
        items.append({**answered[key], **row, "image": image % picture})
    return items


def select(
    items: Sequence[dict], protocol: str = "standard", *, questions: int = 5000, pool: int = 2048, shots: int = 3,
    seed: int = 42, usable: Collection[str] | None = None,
) -> list[dict]:  # fmt: skip
    """The items a protocol asks: all of them, or the authors' choice, each with its `demonstrations`.

    Give all items, and as `usable` the pictures that can be used: those about others are left out of what was drawn.
    Left out before, one picture would change the whole draw. Demonstrations have no picture, so all of them stay.

    They draw pool + questions items without replacement (evaluate.py: numpy's generator, seeded); the first `pool` are
    for demonstrations, the others are asked. For each, Python's generator of the same seed draws `shots` of the pool,
    (question, first annotator's answer). With all 214,354 items of val2014 in file order these are the authors' own.
    ParameterError for too few items.
    """
    check_protocol(protocol, SPEC.protocols)
    if protocol == "standard":
        return [item for item in items if usable is None or item["image"] in usable]
    if min(questions - 1, pool - shots, shots) < 0 or questions + pool > len(items):
        wanted = f"{questions} questions, and {pool} for {shots} demonstrations each"
        raise ParameterError(f"{len(items)} questions are too few for {wanted}: set `questions` and `pool` to fit")
    drawn = np.random.RandomState(seed).choice(len(items), pool + questions, replace=False)
    pooled = [items[place] for place in drawn[:pool]]
    shown = [(row["question"].strip(), row["answers"][0]["answer"].strip()) for row in pooled]
    draw = random.Random(seed)
    asked = [{**items[place], "demonstrations": draw.sample(shown, shots)} for place in drawn[pool:]]
    return [item for item in asked if usable is None or item["image"] in usable]


def read_annotations(path: Path) -> list[dict]:
    """Rows of an annotation file in its order: question_id, question_type, answer_type, and one answer or more.

    The official code takes any number of answers, so this does, though the publishers' rows have ten.
    """
    rows, name = _rows(path, "annotations", ("question_type", "answer_type")), paths.shown(path)
    for number, row in enumerate(rows, start=1):
        where, given = f"{name}, row {number}", row.get("answers")
        if not isinstance(given, list) or not given:
            raise DataError(f"{where}: answers must be a list of one answer or more, found {str(given)[:40]}")
        for place, answer in enumerate(given, start=1):
            if not isinstance(answer, dict) or not isinstance(answer.get("answer"), str):
                raise DataError(f"{where}, answer {place}: expected {{answer, answer_confidence, answer_id}}")
    return rows


def _rows(path: Path, kind: str, texts: Sequence[str]) -> list[dict]:
    """The list `kind` of a file, every row an object with these texts and a question_id of its own."""
    content, name = read_json(path), paths.shown(path)
    expected = f"VQA {kind}, an object with a list {kind!r} that is not empty"
    rows = content.get(kind) if isinstance(content, dict) else None
    for where, row in checks.listed(rows, name, expected):
        checks.texts(row, texts, where)
    checks.once((row.get("question_id") for row in rows), f"{name}, row ", "question_id")
    return rows


@lru_cache(maxsize=1 << 16)  # annotators give the same few thousand answers again and again
def normalised(text: str) -> str:
    """The text without punctuation and articles, in lower case, number words as digits, apostrophes put back."""
    words = [NUMBERS.get(word, word) for word in unpunctuated(text).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def unpunctuated(text: str) -> str:
    """Every mark is dropped if a blank is beside it anywhere, or if any comma is between digits; else it is a blank.

    A period stays before a digit only: `(?!<=\\d)`, meant to look behind, asks for nothing. And only the first 32 go,
    for the official code gives `re.UNICODE`, which is 32, where `sub` takes the count.
    """
    thousands, left = re.search(r"\d,\d", text), text
    for mark in PUNCTUATION:
        beside = f"{mark} " in text or f" {mark}" in text
        left = left.replace(mark, "" if beside or thousands else " ")
    return re.sub(r"\.(?!\d)", "", left, count=32)


def postprocessed(answer: str) -> str:
    """The answer as the paper's authors score it: cut, and "Yes" or "No" if the rest has Yes, yes, No or no in it.

    It ends before the first Question, Answer, ### or </s>. "eyes" is Yes, "snow" and "nothing" are No, "NO" stays.
    Their capital then misses all questions whose annotators agree: see `accuracy`.
    """
    kept = re.split(r"Question|Answer|###|</s>", answer, maxsplit=1)[0]
    for word in ("Yes", "No"):
        if word in kept or word.lower() in kept:
            return word
    return kept


def accuracy(answer: str, references: Sequence[Mapping]) -> float:
    """Official accuracy, 0 to 1: mean over the annotators of min(1, others who gave this answer / 3).

    `references` are the annotations' {"answer", "answer_confidence", "answer_id"}, one or more. Texts are normalised
    only where the references differ; where all agree the answer must be theirs, letter for letter, blanks around it
    aside. The others are the rows that differ from the annotator's in anything: without `answer_id`, rows that are
    alike count as one annotator. ValueError for no reference.
    """
    if not references:
        raise ValueError("an answer is compared with one reference or more, not with none")
    said, known = _trimmed(answer), [_trimmed(row["answer"]) for row in references]
    if len(set(known)) > 1:
        said, known = normalised(said), [normalised(text) for text in known]
    rows = [{**row, "answer": text} for row, text in zip(references, known, strict=True)]
    same = [row for row in rows if row["answer"] == said]
    credit = [min(1, sum(other != row for other in same) / 3) for row in rows]
    return sum(credit) / len(credit)


def _trimmed(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def percent(values: Sequence[float]) -> float:
    """Mean of accuracies in percent, rounded to two decimals, as the official code prints it."""
    return round(100 * sum(values) / len(values), 2)


def grouped(values: Iterable, kinds: Iterable[str]) -> dict[str, list]:
    """The values of each kind, in the order in which the kinds first come."""
    found: dict[str, list] = {}
    for value, kind in zip(values, kinds, strict=True):
        found.setdefault(kind, []).append(value)
    return found


def yes_no_questions(answers: Sequence[str], rows: Sequence[Mapping]) -> dict[int, str]:
    """By place, the answers to yes/no questions: "yes" or "no" where that is the normalised answer, else ""."""
    said = {k: normalised(_trimmed(answers[k])) for k, row in enumerate(rows) if row["answer_type"] == "yes/no"}
    return {place: word if word in ("yes", "no") else "" for place, word in said.items()}


def accuracies(answers: Sequence[str], rows: Sequence[Mapping]) -> list[float]:
    """Accuracy of each answer, 0 to 1, against its annotation's `answers`. ValueError where their numbers differ."""
    return [accuracy(answer, row["answers"]) for answer, row in zip(answers, rows, strict=True)]


def means(values: Sequence[float], rows: Sequence[Mapping]) -> dict:
    """Percent `overall`, `per_answer_type` and `per_question_type` of accuracies, by their annotations."""
    found = {"overall": percent(values)}
    for key in TYPES:
        parts = grouped(values, (row[key] for row in rows))
        found[f"per_{key}"] = {kind: percent(part) for kind, part in parts.items()}
    return found


def prompt(item: dict, protocol: str = "standard") -> str:
    """The question, and in the standard protocol a line that asks for a short answer."""
    check_protocol(protocol, SPEC.protocols)
    question = item["question"].strip()
    return f"{question}\n{SHORT}" if protocol == "standard" else question


def scored(answers: Sequence[str], protocol: str = "standard") -> list[str]:
    """The answers as the metric gets them: as they are, or as the authors' code leaves them."""
    check_protocol(protocol, SPEC.protocols)
    return [postprocessed(answer) if protocol == "paper" else answer for answer in answers]


def score(items: Sequence[dict], answers: Sequence[str], protocol: str = "standard") -> dict:
    """`means` of the answers' accuracies; n; counts `empty` and `unparsed`; `yes_ratio`.

    Of the answers to questions of answer type yes/no, `yes_ratio` is the share that is yes (None where nothing of that
    type is asked), and `unparsed` are neither yes nor no; `empty` ones hold blanks at most. ValueError for no answer,
    or for another number of items.
    """
    if not items:
        raise ValueError("there is no answer to score")
    said = scored(answers, protocol)
    values, words = accuracies(said, items), list(yes_no_questions(said, items).values())
    return {
        **means(values, items),
        "n": len(items),
        "empty": sum(not answer.strip() for answer in said),
        "yes_ratio": words.count("yes") / len(words) if words else None,
        "unparsed": words.count(""),
    }


def rows(
    items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, protocol: str = "standard", seed: int = 0,
    **same,
) -> list[dict]:  # fmt: skip
    """Metric rows, 0 to 1, with 95 % intervals over pictures: accuracy of all, each answer type, each question type.

    The subsets of types are "SUBSET, answer yes/no", "SUBSET, question what color", ...; `yes_ratio` is that of the
    questions of answer type yes/no.
    """
    said, pictures = scored(answers, protocol), [item["image"] for item in items]
    measured = list(zip(accuracies(said, items), pictures, strict=True))
    parts = {("accuracy", subset): measured}
    for key in TYPES:
        for kind, part in grouped(measured, (item[key] for item in items)).items():
            parts["accuracy", f"{subset}, {key.removesuffix('_type')} {kind}"] = part
    if told := yes_no_questions(said, items):
        parts["yes_ratio", subset] = [(float(word == "yes"), pictures[place]) for place, word in told.items()]
    named = {"arm": arm, "benchmark": "vqav2", "seed": seed, "protocol": protocol, **same}
    found = []
    for (metric, name), part in parts.items():
        values, groups = zip(*part, strict=True)
        found.append(stats.metric_row(values, groups=groups, subset=name, metric=metric, **named))
    return found


def blind_levels(items: Sequence[dict]) -> dict[str, float]:
    """Accuracy, by task ("all", "answer number", ...), of one who never looks.

    To each type of question ("how many", "what color is the") it gives the answer that is right most often.
    """
    types, labels = [item["question_type"] for item in items], [item["multiple_choice_answer"] for item in items]
    guessed = rows(items, controls.commonest(types, labels), arm="never looks", subset="real")
    table = controls.split(pd.DataFrame(guessed))
    table = table[(table.metric == "accuracy") & ~table.task.str.startswith("question ")]
    return table.set_index("task").value.to_dict()


def samples(
    items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, protocol: str = "standard"
) -> list[dict]:
    """One record an item: what was asked and said, what is scored of it, the annotators' answers, its accuracy.

    `correct` says that it earns at least half.
    """
    said = scored(answers, protocol)
    judged = zip(items, answers, said, accuracies(said, items), strict=True)
    return [
        {"arm": arm, "subset": subset, "question_id": item["question_id"], "image": item["image"]}
        | {"prompt": prompt(item, protocol), "answer": answer, "scored": read}
        | {"label": item["multiple_choice_answer"], "references": [row["answer"] for row in item["answers"]]}
        | {"answer_type": item["answer_type"], "accuracy": value, "correct": value >= 0.5}
        for item, answer, read, value in judged
    ]


def per_item(samples: Sequence[dict]) -> dict[str, pd.DataFrame]:
    """Scores of the items about the right picture, items x arms, for paired comparisons."""
    return {"VQAv2": controls.by_item([one for one in samples if one["subset"] == "real"], "accuracy")}


def score_files(answers: Path | str, references: Path | str, protocol: str = "standard") -> dict:
    """Scores of an official results file, a list of {question_id, answer}, against the official annotations.

    Percent `overall` and by type, 0 to 1 in `per_question`, by question_id; n. Protocol "standard" wants an answer to
    every annotated question; "paper" scores those that have one, as the authors do, and says so on stderr. So it does
    of annotators without an answer_id of their own, whom the official code takes for one where they agree.
    """
    check_protocol(protocol, SPEC.protocols)
    known, name = read_annotations(Path(references).absolute()), paths.shown(answers)
    annotated, given = {row["question_id"]: row for row in known}, answer_files.read(answers)
    texts = {where: answer_files.text((where, row)) for where, row in given}
    found, unknown = answer_files.by_id(given, ["question_id"], annotated)
    answer_files.refuse_unknown(unknown, "question_id", annotated)
    if protocol == "standard" or not found:
        remedy = "Answer them all; protocol paper scores those that are there"
        answer_files.refuse_missing(found, annotated, "question_id", name, remedy)
    order = annotated if protocol == "standard" else found
    rows, said = [annotated[key] for key in order], [texts[found[key][0]] for key in order]
    if len(rows) < len(known):
        print(f"{name}: {len(rows)} of {len(known)} questions have an answer", file=sys.stderr)
    # an annotator's row is told apart by an answer_id of its own
    ids = [{repr(one["answer_id"]) for one in row["answers"] if "answer_id" in one} for row in rows]
    if alike := [row["question_id"] for row, own in zip(rows, ids, strict=True) if len(own) < len(row["answers"])]:
        told = f"{len(alike)} questions with annotators who share an answer_id or have none, the first question_id"
        print(f"{paths.shown(references)}: {told} {alike[0]!r}. Equal rows of theirs count as one", file=sys.stderr)
    values = accuracies(scored(said, protocol), rows)
    # ten digits drop the noise of floating-point sums: 0.9 is 0.8999999999999998 where three annotators agree
    each = {row["question_id"]: round(value, 10) for row, value in zip(rows, values, strict=True)}
    return {**means(values, rows), "per_question": each, "n": len(rows)}
