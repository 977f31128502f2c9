"""Answering with shared beginnings against the ordinary way, on a small random LLaVA."""

from pathlib import Path

from PIL import Image
from tiny import tokenizer

from sbt.inference import profiling
from sbt.models.measure import random_llava

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
}


def test_both_ways_answer_the_same(tmp_path: Path) -> None:
    words = tokenizer()
    words.pad_token = words.unk_token
    arm = random_llava(words, hidden=64, layers=2, tower=TOWER)
    assert arm.model.config.image_seq_length == 16
    pictures = [Image.effect_noise((60, 60), 90).convert("RGB") for _ in range(2)]
    requests = [
        {"id": f"{k} {i}", "image": picture, "text": f"Is there {'a red ' * (i % 4)}star {i}?"}
        for k, picture in enumerate(pictures)
        for i in range(7)
    ]
    steps: list[tuple[int, int]] = []
    found = profiling.compare_pictures(arm, requests, tmp_path, batch_size=4, progress=lambda *a: steps.append(a))
    assert list(found.way) == [profiling.ORDINARY, profiling.OURS]
    assert found.same.min() == 1.0 and (found.seconds > 0).all() and (found.questions == 14).all()
    assert steps[-1] == (28, 28)
    other = random_llava(words, hidden=64, layers=2, tower=TOWER, seed=1)
    assert profiling.compare_pictures(other, requests, tmp_path / "b", batch_size=4).same.min() == 1.0
