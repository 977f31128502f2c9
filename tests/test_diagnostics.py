"""Visual contribution and held-out loss against sums made by hand; an arm that ignores the image as control."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from tiny_fixtures import small  # noqa: F401 - a fixture

from sbt.data.conversations import text_twin
from sbt.models import Arm, assemble, load_language_model
from sbt.training import Collator, diagnostics
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


def test_held_out_loss_is_that_of_each_row_alone(arm: Arm, small: SimpleNamespace) -> None:  # noqa: F811
    rows, steps = tiny.rows(small.images), []
    arm.model.train()
    found = diagnostics.heldout_loss(arm, rows, "v1", 5, progress=lambda *step: steps.append(step))
    assert arm.model.training
    arm.model.eval()
    assert found == pytest.approx([-np.mean(by_hand(arm, row)) for row in rows], abs=1e-4)
    assert len(set(found.round(4))) > 6
    assert steps == [(5, 12), (10, 12), (12, 12)]
    assert found == pytest.approx(diagnostics.heldout_loss(arm, rows, "v1", 1), abs=1e-4)


def test_held_out_loss_of_a_language_model(small: SimpleNamespace) -> None:  # noqa: F811
    arm = Arm(*load_language_model(small.llm), "lm", None)
    rows = text_twin(tiny.rows(small.images))
    assert diagnostics.heldout_loss(arm, rows, "v1", 4).shape == (12,)
    with pytest.raises(ParameterError, match="no vision tower"):
        diagnostics.visual_contribution(arm, rows, "v1", 4)
    with pytest.raises(DataError, match="no rows to measure on"):
        diagnostics.heldout_loss(arm, [], "v1", 4)


def test_visual_contribution_is_the_gain_over_noise(arm: Arm, small: SimpleNamespace) -> None:  # noqa: F811
    rows = tiny.rows(small.images)
    found = diagnostics.visual_contribution(arm, rows, "v1", 3, seed=4)
    seen = [row for row in rows if row["images"]]
    side = {"height": 24, "width": 24}
    gained = [
        sum(by_hand(arm, row)) - sum(by_hand(arm, diagnostics._with_noise(row, side, draw=0, seed=4))) for row in seen
    ]
    tokens = [len(by_hand(arm, row)) for row in seen]
    assert (found["rows"], found["without_image"], found["ids"]) == (8, 4, [row["id"] for row in seen])
    assert found["tokens"].tolist() == tokens
    assert found["values"] == pytest.approx(np.divide(gained, tokens), abs=1e-4)
    assert np.abs(found["values"]).max() > 1e-4
    assert found["per_token"][0] == pytest.approx(sum(gained) / sum(tokens), abs=1e-4)
    assert found["per_row"][0] == pytest.approx(found["values"].mean())
    for name in ("per_token", "per_row"):
        mean, low, high = found[name]
        assert low < mean < high


def test_noise_depends_on_seed_row_and_draw_alone(arm: Arm, small: SimpleNamespace) -> None:  # noqa: F811
    rows = tiny.rows(small.images)
    first = diagnostics.visual_contribution(arm, rows, "v1", 3)["values"]
    np.random.seed(7)
    again = diagnostics.visual_contribution(arm, rows, "v1", 3)["values"]
    assert (first == again).all()
    turned = diagnostics.visual_contribution(arm, rows[::-1], "v1", 3)["values"][::-1]
    assert first == pytest.approx(turned, abs=1e-5)
    assert (first != diagnostics.visual_contribution(arm, rows, "v1", 3, seed=1)["values"]).any()
    assert (first != diagnostics.visual_contribution(arm, rows, "v1", 3, draws=2)["values"]).any()
    two = diagnostics._with_noise({**rows[1], "images": small.images[:2]}, {"height": 8, "width": 9}, 0, 0)["images"]
    assert two[0].tobytes() != two[1].tobytes()
    assert two[0].size == (9, 8)


def test_control_an_arm_that_ignores_the_image_gains_nothing(arm: Arm, small: SimpleNamespace) -> None:  # noqa: F811
    with torch.no_grad():
        for parameter in arm.model.model.multi_modal_projector.parameters():
            parameter.zero_()
    found = diagnostics.visual_contribution(arm, tiny.rows(small.images), "v1", 3)
    assert (found["values"] == 0).all()
    assert found["per_token"] == (0, 0, 0)


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
    found = diagnostics.visual_contribution(arm, rows, "v1", 3, draws=2)
    assert found["per_token"][0] > 0.1


def test_errors(arm: Arm, small: SimpleNamespace) -> None:  # noqa: F811
    rows = tiny.rows(small.images)
    with pytest.raises(DataError, match="no row has an image"):
        diagnostics.visual_contribution(arm, text_twin(rows), "v1", 4)
    with pytest.raises(ParameterError, match="draws must be 1 or more"):
        diagnostics.visual_contribution(arm, rows, "v1", 4, draws=0)
