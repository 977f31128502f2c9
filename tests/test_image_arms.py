"""Several LoRA arms over one loaded model answer as each does by itself, whatever the order; nothing of one stays."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_fixtures import small  # noqa: F401 - a fixture

from sbt import models
from sbt.inference.generation import generate
from sbt.models import load_vision_models
from sbt.models import vision_arms as module


@pytest.fixture(scope="module")
def arms(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:  # noqa: F811
    """Two LoRA arms over one base, trained to other things, and a full one."""
    folders = {}
    for number, (name, tuning) in enumerate((("one", "lora"), ("full", "full"), ("two", "lora"))):
        model, processor = models.assemble(small.llm, small.clip, seed=number)
        policy = {"connector": "full", "language_model": tuning}
        model = models.set_trainable(model, policy, {"r": 4}, seed=number)
        torch.manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
        folder = tmp_path_factory.mktemp(name)
        parts = {"language_model": small.llm, "vision_tower": small.clip}
        models.save_arm(folder, model, processor, conversation="v1", arm=name, **parts)
        folders[name] = str(folder)
    return folders


def answers(folder: Path, name: str, arm: models.Arm, images: list[str]) -> list[str]:
    asked = [{"id": k, "image": images[k % 3], "text": f"Is it {k}?"} for k in range(6)]
    return generate(arm, asked, cache=folder / name, max_new_tokens=8)


@pytest.mark.parametrize("order", [("one", "full", "two"), ("two", "one", "full")])
def test_shared_arms_answer_as_alone(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    arms: dict[str, str],
    order: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads = []
    assemble = module.assemble
    monkeypatch.setattr(module, "assemble", lambda *parts, **how: loads.append(parts) or assemble(*parts, **how))
    alone = {
        name: answers(tmp_path, f"alone {name}", models.load_arm(ref), small.images) for name, ref in arms.items()
    }
    found = {}
    for name, arm in load_vision_models({name: arms[name] for name in order}):
        assert arm.has_vision
        assert arm.conversation == "v1"
        found[name] = answers(tmp_path, f"shared {name}", arm, small.images)
    assert found == alone
    assert len(set(map(tuple, alone.values()))) == 3, "the arms differ, or nothing was tested"
    assert len(loads) == 1, "two LoRA arms, one base read"


def test_a_lora_arm_alone_is_merged(small: SimpleNamespace, arms: dict[str, str]) -> None:  # noqa: F811
    (_, arm), *rest = load_vision_models({"one": arms["one"]})
    assert not rest
    assert not any("lora" in name for name, _ in arm.model.named_parameters())
