"""How alike a completion and one reference are: sentence BLEU and ROUGE as TruthfulQA's generation task takes them.

Numbers are those of lm-evaluation-harness 0.4.13 (lm_eval/tasks/truthfulqa/utils.py: bleu, rouge), 0 to 100.
`similarity.scores(completion, reference)` -> (bleu, rouge1, rouge2, rougeL)
"""

import functools
import math
from typing import NamedTuple

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics.bleu import BLEU, BLEUScore

_ROUGE = ("rouge1", "rouge2", "rougeLsum")
_KEPT = 2**16  # pairs and texts remembered: six models on TruthfulQA are 42,000 pairs


class Scores(NamedTuple):
    """One completion against one reference, each number 0 to 100."""

    bleu: float
    rouge1: float
    rouge2: float
    rougeL: float


class _Tokenizer(DefaultTokenizer):
    """rouge_score's own, which remembers: it is asked about every reference twice for every completion."""

    def __init__(self) -> None:
        super().__init__(use_stemmer=False)
        self.tokenize = functools.lru_cache(_KEPT)(super().tokenize)


@functools.lru_cache(_KEPT)
def scores(completion: str, reference: str, smooth_all: bool = False) -> Scores:
    """All four at once; see `bleu` and `rouge`. A pair that was scored before is not scored again."""
    return Scores(bleu(completion, reference, smooth_all), *rouge(completion, reference))


def bleu(completion: str, reference: str, smooth_all: bool = False) -> float:
    """Sentence BLEU, `intl` tokens, orders 1 to 4, exponential smoothing, no effective order.

    Without one common word it is 0 in sacrebleu 2. `smooth_all` gives the number of sacrebleu 1.5.0, the version of
    harness 0.3.0, which smooths there too (mjpost/sacrebleu: sacrebleu/metrics/bleu.py@v1.5.0).
    """
    found = _bleu().corpus_score([completion], [[reference]])
    return _smoothed(found) if smooth_all and not any(found.counts) else found.score


def rouge(completion: str, reference: str) -> tuple[float, float, float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L (`rougeLsum`; " . " ends a sentence), without stemming.

    The harness bootstraps this one sample, which gives the same number a thousand times; that is left out.
    """
    found = _rouge().score(*(text.replace(" . ", ".\n") for text in (reference, completion)))
    return tuple(float(found[name].fmeasure) * 100 for name in _ROUGE)


@functools.cache
def _bleu() -> BLEU:
    return BLEU(tokenize="intl", smooth_method="exp", smooth_value=0.0, effective_order=False)


@functools.cache
def _rouge() -> RougeScorer:
    return RougeScorer(_ROUGE, tokenizer=_Tokenizer())


def _smoothed(found: BLEUScore) -> float:
    """BLEU where nothing matches: the precision of order n counts 1 / 2**n matches; 0 if there is an order without."""
    if not all(found.totals):
        return 0.0
    precisions = [100 / (2**order * total) for order, total in enumerate(found.totals, start=1)]
    return found.bp * math.exp(sum(map(math.log, precisions)) / len(precisions))
