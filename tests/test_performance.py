"""What scoring costs, measured: tokens by hand, equal numbers, ratios that are ratios."""

import copy
from types import SimpleNamespace

import pytest
import tiny
import torch
from tiny_fixtures import small  # noqa: F401 - a fixture; it sets the threads, too
from tokenizers import processors
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from sbt.inference import profiling
from sbt.inference.profiling import OURS, THEIRS, compare, ratios
from sbt.models.measure import llama_config, measure, random_llama

# One token a word: contexts and choices whose tokens can be counted.
SHORT, LONG = " is the red star a circle", " is the red star a circle" * 4
ASKED = {
    "short": [{"id": "0", "context": SHORT, "continuations": [" is the star", " a red circle"]}],
    "uneven": [{"id": "0", "context": SHORT, "continuations": [" is", " the star a", " the star is red"]}],
    "few-shot": [
        {"id": f"{n}", "context": LONG + end, "continuations": [" is the star", " a red circle"]}
        for n, end in enumerate([" red", " the", " is", " a star"])
    ],
}


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerBase:
    return tiny.tokenizer(pad="<unk>")


@pytest.fixture(scope="module")
def model(words: PreTrainedTokenizerBase, small: SimpleNamespace) -> LlamaForCausalLM:  # noqa: F811
    return tiny.language_model(words)


def test_a_random_llama_is_the_same_for_the_same_seed(words: PreTrainedTokenizerBase) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    made = [random_llama(words, hidden=64, layers=2, length=99, seed=seed).state_dict() for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state), "the stream of random numbers is used up"
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not torch.equal(made[0]["lm_head.weight"], made[2]["lm_head.weight"])
    assert {tensor.dtype for tensor in made[0].values()} == {torch.float32}
    config = random_llama(words, hidden=128, layers=3, length=99).config
    assert (config.num_hidden_layers, config.max_position_embeddings, config.vocab_size) == (3, 99, len(words))
    assert (config.num_attention_heads, config.intermediate_size) == (2, 344)
    llama_7b = llama_config(words, 4096, 32)
    assert (llama_7b.num_attention_heads, llama_7b.head_dim, llama_7b.intermediate_size) == (32, 128, 11008)


def test_tokens_are_counted_and_the_numbers_are_equal(model: LlamaForCausalLM, words: PreTrainedTokenizerBase) -> None:
    for request in (one for requests in ASKED.values() for one in requests):
        for text in (request["context"], *request["continuations"]):
            assert len(words.encode(text, add_special_tokens=False)) == len(text.split()), text
    steps = []
    frame = compare(model, words, ASKED, batch_size=4, progress=lambda *step: steps.append(step))
    tokens = {(row.task, row.scorer): row.tokens for row in frame.itertuples()}
    # The last token of a choice is predicted, not read. 6 + 3 - 1 twice; shared: 6 once, and 2 a choice.
    assert (tokens["short", THEIRS], tokens["short", OURS]) == (2 * 8, 6 + 2 * 2)
    # Padded to the longest, 6 + 4 - 1, three times; shared: 6, and "the star", "a" or "is" after it: 3 more than 1.
    assert (tokens["uneven", THEIRS], tokens["uneven", OURS]) == (3 * 9, 6 + 2 + 1)
    # 24 + 2 and 2 more for the last question, 24 + 1 and 2 for the others, in one batch of four and one of four.
    assert tokens["few-shot", THEIRS] == 4 * 28 + 4 * 27
    # Shared: 24 once; then a line a question, padded to the longest: 2 of the question, and 2 a choice.
    assert tokens["few-shot", OURS] == 24 + 4 * (2 + 2 * 2)
    assert (frame.difference < 1e-4).all() and (frame.same == 1.0).all()
    assert (frame.seconds > 0).all() and (frame.peak_gb > 0.01).all()
    assert frame.questions.tolist() == [1, 1, 1, 1, 4, 4] and steps == [(n, 6) for n in range(1, 7)]


def test_padding_is_counted_and_beginning_with_bos_too(
    model: LlamaForCausalLM, words: PreTrainedTokenizerBase
) -> None:
    asked, words = {"short": ASKED["short"]}, copy.deepcopy(words)
    begin = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", words.bos_token_id)])
    words.backend_tokenizer.post_processor = begin  # the harness leaves BOS to the tokenizer
    plain, with_bos = (compare(model, words, asked, add_bos=bos) for bos in (False, True))
    assert (with_bos.tokens - plain.tokens).tolist() == [2, 1]
    assert (with_bos.difference < 1e-4).all()
    single = compare(model, words, {"uneven": ASKED["uneven"]}, batch_size=1)
    assert single.tokens.tolist() == [6 + 8 + 9, 9]


def test_ratios_are_theirs_over_ours(model: LlamaForCausalLM, words: PreTrainedTokenizerBase) -> None:
    frame = compare(model, words, {name: ASKED[name] for name in ("uneven", "short")})
    found = ratios(frame)
    assert list(found.index) == ["uneven", "short"]
    assert list(found.columns) == ["times faster", "times fewer tokens", "memory ratio", "difference"]
    assert found["times fewer tokens"].tolist() == [27 / 9, 16 / 10]
    theirs, ours = frame.iloc[0], frame.iloc[1]
    assert (theirs.scorer, ours.scorer) == (THEIRS, OURS)
    assert found["times faster"]["uneven"] == theirs.seconds / ours.seconds
    assert found["memory ratio"]["uneven"] == ours.peak_gb / theirs.peak_gb


def test_a_difference_would_be_seen(
    model: LlamaForCausalLM, words: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(profiling.PrefixLM):
        def loglikelihood(self, *args: object, **given: object) -> list[tuple]:
            found = super().loglikelihood(*args, **given)
            return [(value - 1000 * (value == max(found)[0]), greedy) for value, greedy in found]

    monkeypatch.setattr(profiling, "PrefixLM", Wrong)
    frame = compare(model, words, {"short": ASKED["short"]})
    assert (frame.difference > 900).all() and (frame.same == 0.0).all()


def test_the_cost_of_a_call_is_measured_and_the_hook_goes(model: LlamaForCausalLM) -> None:
    def call() -> str:
        for length in (3, 5):
            model(torch.ones(2, length, dtype=torch.long))
        return "done"

    result, cost = measure(model, call)
    assert (result, cost["tokens"]) == ("done", 2 * 3 + 2 * 5)
    with pytest.raises(ZeroDivisionError):
        measure(model, lambda: 1 / 0)
    assert not model._forward_pre_hooks
