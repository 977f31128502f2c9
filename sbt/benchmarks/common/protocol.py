"""How answers are written: greedily in the arm's own conversation format, or as the authors' code samples them.

Source of PAPER: UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/{evaluate,get_model_output}.py@47f96a3.
"""

from dataclasses import asdict, dataclass, replace

from sbt.benchmarks import check_protocol
from sbt.utils.errors import ParameterError


@dataclass(frozen=True)
class Decoding:
    """One way of writing answers, the same for all arms; `conversation` None is each arm's own.

    `temperature` 0 is greedy. Sampling is seeded by `seed` and by what a batch asks, so that a resumed run samples
    the same. `keep_stop` leaves the format's end sign in an answer.
    """

    max_new_tokens: int = 64
    conversation: str | None = None
    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0
    keep_stop: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or self.top_k < 0:
            raise ParameterError(f"max_new_tokens must be above 0, temperature and top_k not below: {asdict(self)}")

    @property
    def sampled(self) -> bool:
        """Whether chance decides."""
        return self.temperature > 0


# Their evaluation uses the template v0 whatever an arm was trained with, and never overrides the ten tokens.
PAPER = Decoding(max_new_tokens=10, conversation="v0_eval", temperature=0.2, top_k=50, seed=42, keep_stop=True)
# Unicorn's own wrapper takes another format and more tokens, and the end sign off: source in _WRAPPER.
UNICORN = replace(PAPER, max_new_tokens=25, conversation=None, keep_stop=False)
DIFFERENCES = (
    ("conversation template v0 with a built-in text example, whatever an arm was trained with", "eval_scripts/*.sh"),
    ("sampled with temperature 0.2 from the 50 likeliest tokens, not greedy", "evaluate.py:62-92"),
    ("ten new tokens at most, so that captions are cut", "evaluate.py:78-82"),
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
    check_protocol(protocol, ("standard", "paper"))
    return paper if protocol == "paper" else Decoding(max_new_tokens)
