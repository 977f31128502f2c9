"""VQA accuracy, with the official code's regular expressions as they behave, and what the paper's authors do first.

Rules: GT-Vision-Lab/VQA@a013f00: PythonEvaluationTools/vqaEvaluation/vqaEval.py (Python 2, here under Python 3), and
UCSC-VLAA/Sight-Beyond-Text@47f96a3: llava/eval/mmoverall/vqa_metric.py, which has the same accuracy.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

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


def yes_or_no(answer: str) -> str:
    """The answer as "yes" or "no" if it is that word once normalised, else ""."""
    said = normalised(_trimmed(answer))
    return said if said in ("yes", "no") else ""


def yes_no_questions(answers: Sequence[str], rows: Sequence[Mapping]) -> dict[int, str]:
    """`yes_or_no` of the answers to questions of answer type yes/no, by their place."""
    pairs = enumerate(zip(answers, rows, strict=True))
    return {place: yes_or_no(answer) for place, (answer, row) in pairs if row["answer_type"] == "yes/no"}


def accuracies(answers: Sequence[str], rows: Sequence[Mapping]) -> list[float]:
    """Accuracy of each answer, 0 to 1, against its annotation's `answers`. ValueError where their numbers differ."""
    return [accuracy(answer, row["answers"]) for answer, row in zip(answers, rows, strict=True)]


def means(values: Sequence[float], rows: Sequence[Mapping]) -> dict:
    """Percent `overall`, `per_answer_type` and `per_question_type` of accuracies, by their annotations."""
    return {
        "overall": percent(values),
        **{
            f"per_{key}": {kind: percent(part) for kind, part in grouped(values, (row[key] for row in rows)).items()}
            for key in TYPES
        },
    }


def scores(answers: Sequence[str], rows: Sequence[Mapping]) -> dict:
    """`means` of the answers' accuracies; n; counts `empty` and `unparsed`; `yes_ratio`.

    `rows` are annotations: answers, answer_type, question_type. Of the answers to questions of answer type yes/no,
    `yes_ratio` is the share that is yes (None where nothing of that type is asked), and `unparsed` are neither yes nor
    no; `empty` ones hold blanks at most. ValueError for no answer, or for another number of rows.
    """
    if not rows:
        raise ValueError("there is no answer to score")
    words = list(yes_no_questions(answers, rows).values())
    return {
        **means(accuracies(answers, rows), rows),
        "n": len(rows),
        "empty": sum(not answer.strip() for answer in answers),
        "yes_ratio": words.count("yes") / len(words) if words else None,
        "unparsed": words.count(""),
    }
