"""The two ways of writing answers, and what the authors' does to them: sampled, cut, with its end sign."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_fixtures import small  # noqa: F401 - a fixture

from sbt import models, templates
from sbt.benchmarks.common.protocol import PAPER, UNICORN, decoding
from sbt.inference import generation
from sbt.inference.completion import cut
from sbt.inference.decoding import Decoding
from sbt.inference.generation import generate
from sbt.utils.errors import DataError, ParameterError


@pytest.fixture(scope="module")
def arm(small: SimpleNamespace) -> models.Arm:  # noqa: F811
    model, processor = models.assemble(small.llm, small.clip)
    with torch.no_grad():  # so large that a prompt decides, so small that chance matters
        for parameter in model.model.language_model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    processor.chat_template = templates.load("v1")
    return models.Arm(model, processor, "llava", "v1")


HOT = Decoding(max_new_tokens=6, conversation="v0", temperature=1.0, top_k=50, seed=1, keep_stop=True)


def asked(images: list[str], **more: object) -> list[dict]:
    return [{"id": k, "image": images[k % 3], "text": f"Is it {k}?", **more} for k in range(6)]


def test_protocols() -> None:
    assert decoding("standard", 16) == Decoding(16)
    assert not Decoding(16).sampled
    assert decoding("paper", 16) is PAPER
    assert (PAPER.max_new_tokens, PAPER.temperature, PAPER.top_k, PAPER.seed) == (10, 0.2, 50, 42)
    assert (UNICORN.max_new_tokens, UNICORN.conversation, UNICORN.temperature) == (25, None, 0.2)
    assert (PAPER.min_new_tokens, UNICORN.min_new_tokens, Decoding(16).min_new_tokens) == (1, 0, 0)
    with pytest.raises(ParameterError, match="min_new_tokens must lie between 0 and max_new_tokens"):
        Decoding(2, min_new_tokens=3)
    assert PAPER.keep_stop and not UNICORN.keep_stop, "Unicorn's wrapper takes the end sign off"
    with pytest.raises(ParameterError, match="protocol"):
        decoding("papre", 16)
    with pytest.raises(ParameterError, match="temperature"):
        Decoding(temperature=-1)


@pytest.mark.parametrize("share", [True, False])
def test_an_arm_that_would_end_at_once_says_one_token_under_paper(
    tmp_path: Path, small: SimpleNamespace, arm: models.Arm, share: bool  # noqa: F811
) -> None:
    language, tokenizer = models.language_model(arm)

    def end(head: torch.nn.Module, given: tuple, logits: torch.Tensor) -> torch.Tensor:
        logits[..., tokenizer.eos_token_id] += 1e4
        return logits

    hook = language.lm_head.register_forward_hook(end)
    try:
        how = {"cache": tmp_path / "a", "share": share}
        assert set(generate(arm, asked(small.images), decoding=Decoding(6), **how)) == {""}
        lengths = {
            len(tokenizer(answer, add_special_tokens=False)["input_ids"])
            for answer in generate(arm, asked(small.images), decoding=Decoding(6, min_new_tokens=1), **how)
        }
    finally:
        hook.remove()
    assert lengths <= {0, 1, 2} and lengths != {0}, "a token, which may be a blank, and the end"


def test_the_seed_decides_and_nothing_else_draws(tmp_path: Path, small: SimpleNamespace, arm: models.Arm) -> None:  # noqa: F811
    requests = asked(small.images)
    first = generate(arm, requests, cache=tmp_path / "a", decoding=HOT)
    torch.rand(7)
    state = torch.random.get_rng_state()
    assert generate(arm, requests, cache=tmp_path / "b", decoding=HOT) == first
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's chance is left alone"
    other = generate(arm, requests, cache=tmp_path / "c", decoding=Decoding(6, "v0", 1.0, 50, seed=2))
    assert other != first
    assert generate(arm, requests, cache=tmp_path / "d", decoding=Decoding(6, "v0")) != first


def test_a_killed_run_samples_the_same(tmp_path: Path, small: SimpleNamespace, arm: models.Arm) -> None:  # noqa: F811
    requests = asked(small.images)
    whole = generate(arm, requests, cache=tmp_path / "a", decoding=HOT, batch_size=2)
    lines = (tmp_path / "a").read_text().splitlines(keepends=True)
    (tmp_path / "b").write_text("".join(lines[:2]))
    assert generate(arm, requests, cache=tmp_path / "b", decoding=HOT, batch_size=2) == whole


def test_other_decoding_is_not_taken_from_the_cache(tmp_path: Path, small: SimpleNamespace, arm: models.Arm) -> None:  # noqa: F811
    requests = asked(small.images)
    greedy = generate(arm, requests, cache=tmp_path / "a", max_new_tokens=6)
    generate(arm, requests, cache=tmp_path / "a", decoding=HOT)
    assert generate(arm, requests, cache=tmp_path / "a", max_new_tokens=6) == greedy


def test_the_end_sign_stays_where_it_is_kept() -> None:
    assert cut("No###Human: x", ["###"]) == "No"
    assert cut("No###Human: x", ["###"], keep=True) == "No###"
    assert cut("No", ["###"], keep=True) == "No"


def test_demonstrations_are_turns_before_the_question(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    arm: models.Arm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts: list[str] = []
    encode = generation._encode
    monkeypatch.setattr(generation, "_encode", lambda *given: prompts.extend(given[2]) or encode(*given))
    shots = [("What is it?", "A star."), ("And this?", "A heart.")]
    generate(arm, asked(small.images, demonstrations=shots), cache=tmp_path / "a", max_new_tokens=2)
    told = "USER: What is it? ASSISTANT: A star.</s>USER: And this? ASSISTANT: A heart.</s>USER: <image>"
    assert told in prompts[0]
    with pytest.raises(DataError, match="item 0: demonstrations"):
        generate(arm, asked(small.images, demonstrations=[("<image>?", "A star.")]), cache=tmp_path / "b")
    assert [json.loads(line)["id"] for line in (tmp_path / "a").read_text().splitlines()]


@pytest.mark.parametrize("batch_size", [2, 64])
def test_a_long_example_before_every_image_is_computed_once_and_changes_no_answer(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    arm: models.Arm,
    batch_size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    greedy = Decoding(max_new_tokens=6, conversation="v0_eval")
    one_each = [{"id": k, "image": image, "text": "Is it?"} for k, image in enumerate(small.images)]
    shots = [[("What?", "A star. " * k)] for k in range(3)]
    shown = [{**one, "demonstrations": turns} for one, turns in zip(one_each, shots, strict=True)]
    monkeypatch.setattr(generation, "LONG_HEAD", 1)
    monkeypatch.setattr(arm.model.config.text_config, "max_position_embeddings", 2048)  # the example is long
    for name, asked_now in (("one", one_each), ("shown", shown), ("many", asked(small.images))):
        plain = generate(arm, asked_now, cache=tmp_path / f"{name} plain", decoding=greedy, share=False)
        how = {"decoding": greedy, "batch_size": batch_size}
        assert generate(arm, asked_now, cache=tmp_path / name, **how) == plain
