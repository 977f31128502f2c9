"""The order of the rows: LLaVA's groups, the same for any number of processes, and none counted twice."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from datasets import Dataset
from tiny_fixtures import small  # noqa: F401 - a fixture

from sbt import models
from sbt.training import Collator, Settings, sft
from sbt.training.collator import Order, Padded, grouped, has_images, row_lengths
from sbt.training.train import arrow_rows

LENGTHS = [1 + (7 * number) % 31 for number in range(103)]
IMAGES = [number % 3 != 0 for number in range(103)]


def order(step: int = 8, seed: int = 0, lengths: list[int] = LENGTHS) -> list[int]:
    return grouped(lengths, IMAGES, step, torch.Generator().manual_seed(seed))


def test_each_step_is_of_one_modality_and_the_rest_is_mixed() -> None:
    found = order()
    assert sorted(found) == list(range(103))
    steps = [found[start : start + 8] for start in range(0, 103, 8)]
    mixed = [number for number, step in enumerate(steps) if len({IMAGES[row] for row in step}) == 2]
    assert mixed == [len(steps) - 1]  # 4 of 68 rows with an image and 3 of 35 without are left over
    for step in steps[:-1]:
        assert [LENGTHS[row] for row in step] == sorted((LENGTHS[row] for row in step), reverse=True)
    kinds = [IMAGES[step[0]] for step in steps[:-1]]
    assert kinds != sorted(kinds) and kinds != sorted(kinds, reverse=True)


def test_rows_left_over_that_are_more_than_a_step_begin_the_epoch() -> None:
    found = order(step=40)  # 28 rows with an image and 35 without are left over
    assert len({IMAGES[row] for row in found[:40]}) == 2
    assert len({IMAGES[row] for row in found[40:80]}) == 1
    assert sorted(found) == list(range(103))


def test_the_rows_of_a_step_are_drawn_not_chosen_by_length() -> None:
    with_images = {frozenset(order()[start : start + 8]) for start in range(0, 96, 8)}
    assert with_images == {frozenset(order(lengths=[5] * 103)[start : start + 8]) for start in range(0, 96, 8)}
    assert order() == order()
    assert order() != order(seed=1)
    only = grouped([3, 1, 2], [False] * 3, 2, torch.Generator().manual_seed(0))  # one modality is no special case
    assert sorted(only) == [0, 1, 2]


def test_an_order_is_the_stock_one_and_changes_with_the_epoch() -> None:
    now = [0]
    plain = Order(13, 6, seed=4, fill=6, epoch=lambda: now[0])
    first = list(plain)
    assert first[:13] == torch.randperm(13, generator=torch.Generator().manual_seed(4)).tolist()
    assert first[13:] == [13] * 5 and len(plain) == 18  # stand-ins, to whole batches for every process
    now[0] = 1
    assert list(plain)[:13] == torch.randperm(13, generator=torch.Generator().manual_seed(5)).tolist()
    group = Order(103, 8, seed=0, lengths=LENGTHS, images=IMAGES)
    assert list(group) == order() and len(group) == 103


def test_stand_in_rows_are_left_out_and_alone_train_nothing(small: SimpleNamespace) -> None:  # noqa: F811
    collator = Collator(models.assemble(small.llm, small.clip)[1], "v1")
    rows = tiny.rows(small.images)
    nobody = {**rows[1], "id": None}
    padded = Padded(collator)
    for name, tensor in collator(rows[:2]).items():
        assert torch.equal(padded([*rows[:2], nobody])[name], tensor)
    alone = padded([nobody, nobody])
    assert alone["input_ids"].shape[0] == 1
    assert (alone["labels"] == -100).all()
    assert (collator(rows[1:2])["labels"] != -100).any()  # the kept encoding of the real row is as it was


def test_lengths_are_read_from_rows_and_from_prepared_data() -> None:
    rows = [
        {"id": "a", "images": ["x.png"], "messages": [{"role": "user", "content": "four"}]},
        {"id": "b", "images": [], "messages": [{"role": "user", "content": [{"type": "text", "text": "seven.."}]}]},
    ]
    plain = arrow_rows(rows, vision=True)
    assert (row_lengths(plain), has_images(plain)) == ([4, 7], [True, False])
    data = Dataset.from_dict({"id": ["a", "b"], "tokens": [9, 2], "images": [["x"], []]})
    assert (row_lengths(data), has_images(data)) == ([9, 2], [True, False])
    assert has_images(data.remove_columns("images")) == [False, False]


class Killed(Exception):
    """Stands for a kill at a step."""


def test_a_grouped_run_sees_the_groups_and_resumes_with_the_same_weights(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(learning_rate=1e-3, max_steps=7, batch_size=2, accumulation=2, save_steps=3, save_minutes=0)
    settings = dataclasses.replace(settings, group_by_length=True)
    seen: list[str] = []
    collate = Collator.__call__

    def look(self: Collator, rows: list[dict]) -> dict:
        seen.extend(row["id"] for row in rows)
        return collate(self, rows)

    def run(name: str, chosen: Settings = settings, cut: int = 0) -> object:
        def progress(step: int, total: int, loss: float) -> None:
            if step == cut:
                raise Killed

        model, processor = models.assemble(small.llm, small.clip)
        model = models.set_trainable(model, {"connector": "full", "language_model": "full"})
        return sft(model, processor, rows, tmp_path / name, chosen, progress=progress)

    rows = tiny.rows(small.images, 12)
    monkeypatch.setattr(Collator, "__call__", look)
    whole = run("whole")
    images = [int(row.removeprefix("row")) % 3 != 0 for row in seen]
    assert all(len(set(images[start : start + 4])) == 1 for start in range(0, 28, 4))  # 8 and 4 rows: none left over
    epochs = [seen[0:12], seen[12:24]]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(row["id"] for row in rows)
    assert epochs[0] != epochs[1]
    with pytest.raises(Killed):
        run("cut", cut=5)
    resumed = run("cut")
    assert resumed.resumed_from == 3
    assert resumed.weights_sha256 == whole.weights_sha256
    plain = run("plain", dataclasses.replace(settings, group_by_length=False))
    assert plain.weights_sha256 != whole.weights_sha256
