"""Greedy answers to every vision benchmark's own requests: shared and batched as notebooks ask, or each for itself."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from sbt import models, templates
from sbt.benchmarks.captions import task as captions
from sbt.benchmarks.common import protocol as decoding
from sbt.benchmarks.common.evaluate import Questions
from sbt.benchmarks.mme import task as mme
from sbt.benchmarks.pope import task as pope
from sbt.benchmarks.unicorn import task as unicorn
from sbt.benchmarks.vqav2 import task as vqav2
from sbt.inference import generation
from sbt.inference.decoding import Decoding
from sbt.microworld import scenes, vision_benchmarks, write
from sbt.models import silence_libraries
from sbt.utils.files import write_json, write_jsonl

QA = tuple[str, str]
NEW = 10  # tokens of an answer
PAPER = {"unicorn": decoding.UNICORN}
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every vision benchmark's files, a few pictures each."""
    folder = tmp_path_factory.mktemp("world")
    vision_benchmarks.write(folder, 0, vision_benchmarks.Sizes(mme=1, vqav2=4, unicorn=4, oodcv=4))
    shown, files = write.scenes_of("pope", 4, 0, least=3), write.FILES
    vision_benchmarks.draw(folder / "images", {name: partial(scenes.render, scene) for name, scene in shown.items()})
    write_jsonl(folder / files["pope_random"], write.pope_rows(shown, "random", 0))
    write_json(folder / files["captions"], write.coco_captions(shown, 0))
    write_json(folder / files["pretrain"], write.pretrain_rows(shown, 0))
    return folder


@pytest.fixture(scope="module")
def arm() -> models.Arm:
    """The kept models, joined by a connector that has not learnt; weights changed until pictures change answers."""
    with silence_libraries(), torch.no_grad():
        model, processor = models.assemble("assets/llm", "assets/clip", dtype="float32")
        grey = processor.image_processor([Image.new("RGB", (224, 224), "grey")], return_tensors="pt")
        seen = model.model.vision_tower(**grey, output_hidden_states=True)
        first = model.model.multi_modal_projector.linear_1
        first.weight.mul_(8)
        first.bias.copy_(-first.weight @ seen.hidden_states[model.config.vision_feature_layer][0, 1:].mean(0))
        drawn = torch.Generator().manual_seed(0)
        for weights in model.model.language_model.layers.parameters():
            if weights.dim() == 2:
                weights.add_(torch.randn(weights.shape, generator=drawn) * 0.15)
    return models.Arm(model.eval(), processor, "llava", "v1")


TASKS = {"mme": mme, "vqav2": vqav2, "captions": captions, "pope": pope, "unicorn": unicorn}


def asked(name: str, world: Path, protocol: str) -> list[dict]:
    """Items as the benchmark's notebook makes them, of the first few pictures."""
    tests, paper = world / "eval", protocol == "paper"
    if name == "mme":
        return mme.with_pictures(world / "images", mme.load(tests / "mme")[:8])
    if name == "vqav2":
        items = vqav2.load(tests / "vqav2/questions.json", tests / "vqav2/annotations.json")
        return vqav2.select(items, protocol, questions=9, pool=3)[:12]
    if name == "captions":
        items = captions.load(tests / "captions.json")
        return captions.demonstrations(world / "pretrain/chat.json", items, 0) if paper else items
    if name == "pope":
        return pope.load(pope.files(tests, ["random"])["random"])[: 12 if paper else 24]
    tasks = ("oodcv-vqa", "oodcv-counterfactual", "sketchy-vqa", "sketchy-challenging")
    return [item for task in tasks for item in unicorn.load(tests / "unicorn", task)[:3]]


def alone(arm: models.Arm, picture: Path, text: str, shots: list[QA], how: Decoding) -> str:
    """transformers' own way, one prompt at a time: processor, pixel values, generate."""
    style = how.conversation or arm.conversation
    turns = [(role, said) for shot in shots for role, said in zip(("user", "assistant"), shot, strict=True)]
    messages = [{"role": role, "content": [{"type": "text", "text": said}]} for role, said in turns]
    messages.append({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"\n{text}"}]})
    prompt = arm.processor.apply_chat_template(
        messages, chat_template=templates.load(style), tokenize=False, add_generation_prompt=True
    )
    with Image.open(picture) as opened:
        given = arm.processor(images=opened.convert("RGB"), text=prompt, return_tensors="pt", add_special_tokens=False)
    with torch.inference_mode():
        length = {"max_new_tokens": how.max_new_tokens, "min_new_tokens": how.min_new_tokens}
        made = arm.model.generate(**given, **length, do_sample=False)
    answer = arm.tokenizer.decode(made[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
    before, found, _ = answer.partition(templates.stop_string(style) or "\0")
    return (before + found if how.keep_stop else before).strip()


def both(
    name: str, protocol: str, world: Path, arm: models.Arm, folder: Path
) -> tuple[list[str], Callable[[], list[str]]]:
    """(answers one at a time, how to ask as the notebooks do), under a protocol at temperature 0."""
    items, task = asked(name, world, protocol), TASKS[name]
    greedy = replace(PAPER.get(name, decoding.PAPER), temperature=0.0, max_new_tokens=NEW)
    how = decoding.decoding(protocol, NEW, paper=greedy)

    def together() -> list[str]:
        caches = folder / str(len(list(folder.iterdir())))
        return Questions(task, items, world / "images", caches, protocol, how, batch_size=8).answers("a", arm, "real")

    def one_by_one(item: dict) -> str:
        file = world / "images" / item.get("file", item["image"])
        return alone(arm, file, task.prompt(item, protocol), item.get("demonstrations", ()), how)

    with silence_libraries():
        return [one_by_one(item) for item in items], together


@pytest.mark.parametrize("protocol", ["standard", "paper"])
@pytest.mark.parametrize("name", ["mme", "vqav2", "captions", "pope", "unicorn"])
def test_answers_are_those_of_one_prompt_at_a_time(
    name: str, protocol: str, world: Path, arm: models.Arm, tmp_path: Path
) -> None:
    expected, together = both(name, protocol, world, arm, tmp_path)
    assert together() == expected
    assert len(set(expected)) > 2, "a model that says the same to all shows nothing"


def test_a_neighbours_picture_is_noticed(
    world: Path, arm: models.Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: sharing that gives a question the beginning of another picture answers otherwise."""
    expected, together = both("pope", "standard", world, arm, tmp_path)
    repeated, read = generation.repeated, SimpleNamespace(shared=0)

    def wrong(past: object, rows: list[int], config: object) -> object:
        read.shared += 1
        return repeated(past, [(row + 1) % (max(rows) + 1) for row in rows], config)

    monkeypatch.setattr(generation, "repeated", wrong)
    assert together() != expected and read.shared > 1
