"""How the two protocols write answers: greedily in the arm's own format, or as the authors' code samples them.

Source of PAPER: UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/{evaluate,get_model_output}.py@47f96a3.
"""

from dataclasses import replace

from sbt.benchmarks import check_protocol
from sbt.inference.decoding import Decoding

PROTOCOLS = ("standard", "paper")
# Their evaluation uses the template v0 whatever an arm was trained with, and never overrides the ten tokens.
PAPER = Decoding(
    max_new_tokens=10, conversation="v0_eval", temperature=0.2, top_k=50, seed=42, keep_stop=True, min_new_tokens=1
)
# Unicorn's own wrapper takes another format and more tokens, no least length, and the end sign off: _WRAPPER.
UNICORN = replace(PAPER, max_new_tokens=25, conversation=None, keep_stop=False, min_new_tokens=0)
DIFFERENCES = (
    ("conversation template v0 with a built-in text example, whatever an arm was trained with", "eval_scripts/*.sh"),
    ("sampled with temperature 0.2 from the 50 likeliest tokens, not greedy", "evaluate.py:62-92"),
    ("ten new tokens at most, so that captions are cut", "evaluate.py:78-82"),
    ("one new token at least: no answer ends before it began", "evaluate.py:83-87"),
    ("the end sign ### stays in the answer", "get_model_output.py:73-133"),
)
_WRAPPER = "UCSC-VLAA/vllm-safety-benchmark@ef1aba1: baselines/llava_modeling.py"
UNICORN_DIFFERENCES = (  # in place of the above
    (DIFFERENCES[1][0], _WRAPPER),
    (
        "25 new tokens at most; the template, which theirs chooses by the model's path, is each arm's own here",
        _WRAPPER,
    ),
)


def decoding(protocol: str, max_new_tokens: int, *, paper: Decoding = PAPER) -> Decoding:
    """Greedy decoding of at most `max_new_tokens` for protocol "standard", `paper` for "paper"."""
    check_protocol(protocol, PROTOCOLS)
    return paper if protocol == "paper" else Decoding(max_new_tokens)
