"""How an answer is written: greedily or sampled. Light, so that the description of a benchmark can name it."""

from dataclasses import asdict, dataclass

from sbt.utils.errors import ParameterError


@dataclass(frozen=True)
class Decoding:
    """One way of writing answers, the same for all arms; `conversation` None is each arm's own.

    `temperature` 0 is greedy. Sampling is seeded by `seed` and by what a batch asks, so that a resumed run samples
    the same. `keep_stop` leaves the format's end sign in an answer. Before `min_new_tokens` tokens, no answer ends.
    ParameterError for numbers out of range.
    """

    max_new_tokens: int = 64
    conversation: str | None = None
    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0
    keep_stop: bool = False
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or self.top_k < 0:
            raise ParameterError(f"max_new_tokens must be above 0, temperature and top_k not below: {asdict(self)}")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ParameterError(f"min_new_tokens must lie between 0 and max_new_tokens: {asdict(self)}")

    @property
    def sampled(self) -> bool:
        """Whether chance decides."""
        return self.temperature > 0
