"""Where an answer ends: stop strings, looked for as tokens come, and cut off afterwards."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria


def cut(answer: str, stops: Sequence[str], *, keep: bool = False) -> str:
    """The answer up to the first of the stop strings, or with `keep` up to its end."""
    for stop in stops:
        before, found, _ = answer.partition(stop)
        answer = before + found if keep else before
    return answer


class StopAt(StoppingCriteria):
    """Ends the rows whose latest tokens, those after the first `skip`, spell one of the stop strings."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], skip: int = 0) -> None:
        self.tokenizer, self.stops, self.skip = tokenizer, list(stops), skip
        self.window = 1 + max(map(len, self.stops))  # in tokens: a token has a character at least

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **kwargs: object) -> torch.BoolTensor:
        latest = input_ids[:, max(self.skip, input_ids.shape[1] - self.window) :]
        tails = self.tokenizer.batch_decode(latest, clean_up_tokenization_spaces=False)
        return torch.tensor([any(stop in tail for stop in self.stops) for tail in tails], device=input_ids.device)
