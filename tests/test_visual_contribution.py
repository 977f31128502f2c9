"""Visual contribution and held-out loss against sums made by hand; an arm that ignores the image as control."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from tiny_fixtures import small  # noqa: F401 - a fixture

from sbt.benchmarks.visual_contribution.task import noise, visual_contribution, with_images
from sbt.data.conversations import text_twin
from sbt.models import Arm, assemble, load_language_model
from sbt.training import Collator, response_logprobs
from sbt.utils.errors import DataError, ParameterError


@pytest.fixture
def arm(small: SimpleNamespace) -> Arm:  # noqa: F811
    model, processor = assemble(small.llm, small.clip)
    return Arm(model.eval(), processor, "llava", "v1")


def by_hand(arm: Arm, row: dict) -> list[float]:
    """Log-probability of every response token of one row, unbatched, from the whole vocabulary."""
    batch = Collator(arm.processor, "v1")([row])
    targets = batch.pop("labels")[0]
    with torch.no_grad():
        logged = arm.model(**batch).logits[0].log_softmax(dim=-1)
    return [logged[place - 1, target].item() for place, target in enumerate(targets.tolist()) if target != -100]


def measured(arm: Arm, rows: list[dict], batch_size: int = 3, seed: int = 0, draw: int = 0) -> dict:
    """As the notebook does it."""
    rows = with_images(rows)
    sums, tokens = response_logprobs(arm, rows, "v1", batch_size)
    noisy, _ = response_logprobs(arm, rows, "v1", batch_size, change=noise(arm, seed, draw))
    return visual_contribution(rows, sums, noisy, tokens, seed)


def test_log_probabilities_are_those_of_each_row_alone(arm: Arm, small: SimpleNamespace) -> None:  # noqa: F811
    rows, steps = tiny.rows(small.images), []
    arm.model.train()
    sums, tokens = response_logprobs(arm, rows, "v1", 5, progress=lambda *step: steps.append(step))
    assert arm.model.training
    arm.model.eval()
    alone = [by_hand(arm, row) for row in rows]
    assert sums == pytest.approx([sum(one) for one in alone], abs=1e-3)
    assert list(tokens) == [len(one) for one in alone]
    assert len(set((sums / tokens).round(4))) > 6
    assert steps == [(5, 12), (10, 12), (12, 12)]


def test_instructions_are_scored_where_the_loss_says_so(arm: Arm, small: SimpleNamespace) -> None:  # noqa: F811
    rows = tiny.rows(small.images)
    arm.model.eval()
    sums, tokens = response_logprobs(arm, rows, "v1", 5)
    both, all_tokens = response_logprobs(arm, rows, "v1", 5, loss={"on": "instruction"})
    words = Collator(arm.processor, "v1", {"on": "instruction"})
    assert list(all_tokens) == [int((words([row])["labels"] != -100).sum()) for row in rows]
    assert (all_tokens > tokens).all() and (both < sums).all()


def test_a_language_model_has_log_probabilities_and_no_contribution(small: SimpleNamespace) -> None:  # noqa: F811
    arm = Arm(*load_language_model(small.llm), "lm", None)
    rows = text_twin(tiny.rows(small.images))
    assert response_logprobs(arm, rows, "v1", 4)[0].shape == (12,)
    with pytest.raises(ParameterError, match="no vision tower"):
        noise(arm)
    with pytest.raises(DataError, match="no rows to measure on"):
        response_logprobs(arm, [], "v1", 4)
    with pytest.raises(DataError, match="no row has an image"):
        with_images(rows)


def test_visual_contribution_is_the_gain_over_noise(arm: Arm, small: SimpleNamespace) -> None:  # noqa: F811
    rows = with_images(tiny.rows(small.images))
    found = measured(arm, tiny.rows(small.images), seed=4)
    assert len(rows) == 8
    change = noise(arm, seed=4)
    gained = [sum(by_hand(arm, row)) - sum(by_hand(arm, change(row))) for row in rows]
    tokens = [len(by_hand(arm, row)) for row in rows]
    assert found["values"] == pytest.approx(np.divide(gained, tokens), abs=1e-4)
    assert np.abs(found["values"]).max() > 1e-4
    assert found["per_token"][0] == pytest.approx(sum(gained) / sum(tokens), abs=1e-4)
    mean, low, high = found["per_token"]
    assert low < mean < high


def test_noise_depends_on_seed_row_and_draw_alone(arm: Arm, small: SimpleNamespace) -> None:  # noqa: F811
    row = {**tiny.rows(small.images)[1], "images": small.images[:2]}

    def pixels(seed: int = 0, draw: int = 0, name: str = "row1") -> list[bytes]:
        return [image.tobytes() for image in noise(arm, seed, draw)({**row, "id": name})["images"]]

    first = pixels()
    np.random.seed(7)
    assert pixels() == first and first[0] != first[1]
    assert first not in (pixels(seed=1), pixels(draw=1), pixels(name="row2"))
    assert noise(arm)(row)["images"][0].size == (24, 24)


def test_control_an_arm_that_ignores_the_image_gains_nothing(arm: Arm, small: SimpleNamespace) -> None:  # noqa: F811
    with torch.no_grad():
        for parameter in arm.model.model.multi_modal_projector.parameters():
            parameter.zero_()
    found = measured(arm, tiny.rows(small.images))
    assert (found["values"] == 0).all()
    assert found["per_token"][0] == 0


def test_a_model_that_reads_the_image_gains(arm: Arm, small: SimpleNamespace) -> None:  # noqa: F811
    """Sixty steps on one fixed answer per picture make the right picture worth more than noise."""
    asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nWhat colour?"}]}
    rows = [
        {"id": name, "images": [image], "messages": [asked, {"role": "assistant", "content": name}]}
        for name, image in zip(("red", "green", "blue"), small.images, strict=True)
    ]
    batch = Collator(arm.processor, "v1")(rows)
    optimizer = torch.optim.AdamW(arm.model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        arm.model(**batch).loss.backward()
        optimizer.step()
    found = measured(arm, rows)
    assert found["per_token"][0] > 0.1
