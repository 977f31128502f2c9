"""SQuAD 2.0's scores (Rajpurkar et al. 2018), as the official script, evaluate-v2.0.py, defines them.

Scores are 0 to 1 here; the official script, `evaluate`'s squad_v2 and the harness give them times 100.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, then without the words a, an, the; single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def golds(texts: Sequence[str]) -> list[str]:
    """The normalised answers that are not empty; the empty one alone where there is none: "unanswerable"."""
    return [plain for plain in map(normalize, texts) if plain] or [""]


def exact(answer: str, texts: Sequence[str]) -> float:
    """1.0 if the normalised answer is one of the gold answers; of no gold answers, only if it is empty."""
    return float(normalize(answer) in golds(texts))


def f1(answer: str, texts: Sequence[str]) -> float:
    """Best F1 of the answer's words, as a bag, with those of a gold answer; where one has none, 1.0 if neither has."""
    words = Counter(normalize(answer).split())
    return max(_f1(words, Counter(gold.split())) for gold in golds(texts))


def _f1(words: Counter, gold: Counter) -> float:
    if not words or not gold:
        return float(words == gold)
    shared = (words & gold).total()
    if not shared:
        return 0.0
    precision, recall = shared / words.total(), shared / gold.total()
    return 2 * precision * recall / (precision + recall)


def thresholded(
    scores: Sequence[float], no_answer: Sequence[float], answerable: Sequence[bool], threshold: float = 1.0
) -> list[float]:
    """Scores with the answers taken back whose probability of having none is above the threshold: at 1.0, never.

    So an answer "unanswerable" stays a wrong text at the harness's threshold, 1.0.
    """
    items = zip(scores, no_answer, answerable, strict=True)
    return [score if p <= threshold else float(not known) for score, p, known in items]


def best(
    scores: Sequence[float], no_answer: Sequence[float], answerable: Sequence[bool], answers: Sequence[str]
) -> tuple[list[float], float]:
    """Item scores at the threshold whose mean is highest (best_exact, best_f1), and that threshold.

    From no answer at all, answers are let in one by one by rising probability of having none, equals in the order of
    the file; the first highest sum wins. An unanswerable item's answer counts as wrong unless its text is empty, as it
    stands: a blank is an answer here, though `exact` takes it for none.
    """
    held = [float(not known) for known in answerable]
    given = [s if known else float(not a) for s, known, a in zip(scores, answerable, answers, strict=True)]
    order = sorted(range(len(held)), key=lambda place: no_answer[place])
    total = highest = sum(held)
    kept = 0
    for count, place in enumerate(order, start=1):
        total += given[place] - held[place]
        if total > highest:
            highest, kept = total, count
    for place in order[:kept]:
        held[place] = given[place]
    return held, no_answer[order[kept - 1]] if kept else 0.0
