"""Greedy answers: equal to the ordinary way one by one, whatever the batch; kept and resumed."""

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_fixtures import small  # noqa: F401 - a fixture

from sbt import models, templates
from sbt.inference import generation
from sbt.inference.generation import generate
from sbt.utils.errors import DataError


@pytest.fixture(scope="module")
def arm(small: SimpleNamespace) -> models.Arm:  # noqa: F811
    """A model that looks: weights large enough that the image changes the answer."""
    model, processor = models.assemble(small.llm, small.clip)
    with torch.no_grad():
        for parameter in model.model.language_model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
        model.model.multi_modal_projector.linear_1.weight.mul_(50)
    processor.chat_template = templates.load("v1")
    return models.Arm(model, processor, "llava", "v1")


def asked(images: list[str]) -> list[dict]:
    return [
        {
            "id": number,
            "image": images[number % 3] if number % 4 else None,
            "text": f"Is it {'so ' * (number % 5)}{number}?",
        }
        for number in range(9)
    ]


def ordinary(arm: models.Arm, request: dict) -> str:
    """transformers' own way: processor, pixel values, generate."""
    image = [{"type": "image", "image": request["image"]}] if request["image"] else []
    content = [*image, {"type": "text", "text": ("\n" if image else "") + request["text"]}]
    inputs = arm.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    made = arm.model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return arm.tokenizer.decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_answers_are_those_of_the_ordinary_way(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    arm: models.Arm,
    batch_size: int,
) -> None:
    requests = asked(small.images)
    steps = []
    answers = generate(
        arm,
        requests,
        cache=tmp_path / "a",
        max_new_tokens=8,
        batch_size=batch_size,
        progress=lambda *a: steps.append(a),
    )
    assert answers == [ordinary(arm, request) for request in requests]
    assert len(set(answers)) > 3
    assert steps[-1] == (9, 9)


def test_the_image_matters_and_each_is_encoded_once(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    arm: models.Arm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded, encode = [], arm.model.get_image_features
    monkeypatch.setattr(
        arm.model, "get_image_features", lambda pixel_values: encoded.append(len(pixel_values)) or encode(pixel_values)
    )
    requests = [
        {"id": f"{n}{i}", "image": image, "text": f"{n}?"} for n in range(4) for i, image in enumerate(small.images)
    ]
    answers = generate(arm, requests, cache=tmp_path / "a", max_new_tokens=6, batch_size=5)
    assert sum(encoded) == 3
    assert len({answer for answer, request in zip(answers, requests, strict=True) if request["text"] == "0?"}) > 1
    blank = Image.new("RGB", (24, 24))
    other = generate(
        arm, [{**request, "image": blank} for request in requests], cache=tmp_path / "a", max_new_tokens=6
    )
    assert other != answers


def scattered(folder: Path, how: str) -> list[dict]:
    """Questions about twelve images, one's far from each other, with beginnings of many lengths."""
    files = [str(folder / f"{k}.png") for k in range(12)]
    for k, file in enumerate(files):
        Image.new("RGB", (24, 24), (20 * k, 255 - 20 * k, 90)).save(file)
    shots = [[("What?", "A star. " * (k * 5 % 4))] for k in range(12)]
    return [
        {"id": f"{n} {k}", "image": file, "text": "so " * (n * (k % 3)) + f"{n}?", "demonstrations": shots[k]}
        for n in range(1 if how == "one" else 3)
        for k, file in enumerate(files)
    ]


@pytest.mark.parametrize("ahead", [(), ("cpu",)], ids=["in turn", "read ahead"])
@pytest.mark.parametrize("batch_size", [2, 5, 64])
@pytest.mark.parametrize("how", ["shared", "plain", "one"])
def test_each_image_is_encoded_once_where_few_are_kept(
    tmp_path: Path,
    arm: models.Arm,
    how: str,
    batch_size: int,
    ahead: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sbt.inference.generation.READ_AHEAD", ahead)
    encoded, encode = [], arm.model.get_image_features
    monkeypatch.setattr(
        arm.model, "get_image_features", lambda pixel_values: encoded.append(len(pixel_values)) or encode(pixel_values)
    )
    monkeypatch.setattr("sbt.inference.generation.LONG_HEAD", 1)
    requests = scattered(tmp_path, how)
    size = {"max_new_tokens": 3, "batch_size": batch_size, "share": how != "plain"}
    ample = generate(arm, requests, cache=tmp_path / "ample", **size)
    assert sum(encoded) == 12
    monkeypatch.setattr("sbt.inference.generation._IMAGES_AT_ONCE", 2)
    monkeypatch.setattr("sbt.inference.generation._FEATURE_BYTES", 1)  # so that four are kept
    opened, read = [], generation.open_rgb
    monkeypatch.setattr(generation, "open_rgb", lambda file: opened.append(threading.current_thread()) or read(file))
    encoded.clear()
    assert generate(arm, requests, cache=tmp_path / "scarce", **size) == ample
    assert encoded == [2] * 6
    own = opened.count(threading.current_thread())
    assert len(opened) == 12 and own == (2 if ahead else 12), "the first group is read when it is needed"
    lines = (tmp_path / "scarce").read_text().splitlines(keepends=True)
    (tmp_path / "cut").write_text("".join(lines[: len(lines) // 2]))  # what is there moves no batch
    assert generate(arm, requests, cache=tmp_path / "cut", **size) == ample


@pytest.mark.parametrize("batch_size", [2, 5, 64])
def test_a_shared_beginning_is_computed_once_and_changes_no_answer(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    arm: models.Arm,
    batch_size: int,
) -> None:
    requests = [
        {"id": f"{n}{i}", "image": image, "text": "colour " * (n % 4) + f"{n}?"}
        for n in range(7)
        for i, image in enumerate([*small.images, None])
    ]
    tokens = [0]

    def count(module: torch.nn.Module, args: tuple, given: dict) -> None:
        read = given.get("inputs_embeds")
        tokens[0] += read[..., 0].numel() if read is not None else given["input_ids"].numel()

    hook = arm.model.model.language_model.register_forward_pre_hook(count, with_kwargs=True)
    found = {}
    for share in (False, True):
        tokens[0] = 0
        size = {"max_new_tokens": 6, "batch_size": batch_size}
        answers = generate(arm, requests, cache=tmp_path / f"{share}", share=share, **size)
        found[share] = answers, tokens[0]
    hook.remove()
    assert found[True][0] == found[False][0]
    assert len(set(found[True][0])) > 3
    assert found[True][1] < 0.7 * found[False][1]


class Stop(Exception):
    """Stands for a kill."""


def test_a_killed_run_goes_on_and_a_finished_one_answers_from_its_cache(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    arm: models.Arm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests = asked(small.images)

    def stop(done: int, total: int) -> None:
        if done >= 6:
            raise Stop

    whole = generate(arm, requests, cache=tmp_path / "whole", max_new_tokens=8, batch_size=3)
    with pytest.raises(Stop):
        generate(arm, requests, cache=tmp_path / "cut", max_new_tokens=8, batch_size=3, progress=stop)
    lines = (tmp_path / "cut").read_text().splitlines()
    assert 6 <= len(lines) < len(requests)
    (tmp_path / "cut").write_text("\n".join(lines) + '\n{"id": "3", "ke')  # killed while it wrote
    assert generate(arm, requests, cache=tmp_path / "cut", max_new_tokens=8, batch_size=3) == whole
    assert [json.loads(line)["id"] for line in (tmp_path / "cut").read_text().splitlines()[: len(lines)]] == [
        json.loads(line)["id"] for line in lines
    ]
    monkeypatch.setattr("sbt.inference.generation._Writer.write", None)  # nothing is computed any more
    assert generate(arm, requests, cache=tmp_path / "cut", max_new_tokens=8, batch_size=3) == whole


def test_a_damaged_line_in_a_cache_is_an_error(tmp_path: Path, small: SimpleNamespace, arm: models.Arm) -> None:  # noqa: F811
    cache = tmp_path / "a.jsonl"
    generate(arm, asked(small.images), cache=cache, max_new_tokens=2)
    lines = cache.read_text().splitlines()
    cache.write_text("\n".join([lines[0], lines[1][:-9], *lines[2:]]) + "\n")
    with pytest.raises(DataError, match=r"a.jsonl:2: damaged line. Delete the file"):
        generate(arm, asked(small.images), cache=cache, max_new_tokens=2)


def test_answers_of_another_model_prompt_or_image_are_not_taken(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    arm: models.Arm,
) -> None:
    image = tmp_path / "x.png"
    shutil.copy(small.images[0], image)
    request = {"id": "a", "image": str(image), "text": "What?"}
    cache = tmp_path / "c"

    def entries(**options: object) -> int:
        generate(options.pop("arm", arm), [{**request, **options}], cache=cache, max_new_tokens=3)
        return len(cache.read_text().splitlines())

    assert entries() == 1
    assert entries() == 1
    assert entries(text="Why?") == 2
    shutil.copy(small.images[2], image)
    assert entries() == 3
    model, processor = models.assemble(small.llm, small.clip, seed=4)
    assert entries(arm=models.Arm(model, processor, "llava", "v1")) == 4


@pytest.mark.parametrize(("name", "sign"), [("v0", "###"), ("plain", "\n")])
def test_a_format_without_end_token_ends_at_its_sign(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    name: str,
    sign: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, processor = models.assemble(small.llm, small.clip)
    spoken = processor.tokenizer.encode(f" Yes{sign} No No No", add_special_tokens=False)
    taken = []

    def speak(hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*hidden.shape[:-1], model.config.text_config.vocab_size)
        logits[..., spoken[len(taken)]] = 1.0
        taken.append(1)
        return logits

    monkeypatch.setattr(model.lm_head, "forward", speak)
    arm = models.Arm(model, processor, "llava", name)
    request = {"id": 1, "image": small.images[0], "text": "A star?"}
    assert generate(arm, [request], cache=tmp_path / "c", max_new_tokens=12) == ["Yes"]
    assert len(taken) < 5


def test_an_arm_without_a_format_continues_the_text(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    base = models.load_arm(small.llm)
    answer = generate(base, [{"id": 1, "image": None, "text": "a red"}], cache=tmp_path / "c", max_new_tokens=4)[0]
    ids = torch.tensor([base.tokenizer.encode("<s>a red", add_special_tokens=False)])
    made = base.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
    assert answer == base.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_requests_that_cannot_be_answered_are_named(tmp_path: Path, small: SimpleNamespace, arm: models.Arm) -> None:  # noqa: F811
    def refuse(match: str, *requests: dict, arm: models.Arm = arm, **options: object) -> None:
        with pytest.raises(DataError, match=match):
            generate(arm, requests, cache=tmp_path / "c", **options)

    good = {"id": "q", "image": small.images[0], "text": "What?"}
    refuse("item 'q' has an image but the arm .lm. has no vision tower", good, arm=models.load_arm(small.llm))
    refuse("item 'q': image .*gone.png cannot be read", {**good, "image": str(tmp_path / "gone.png")})
    refuse("item 'q': 2 <image> in the text", {**good, "text": "<image> and <image>"})
    refuse("item 'q': 1 <image> in the text", {**good, "image": None, "text": "<image>"})
    refuse("item id 'q' is used twice", good, good)
    refuse("item 'q': .* the model reads 512", {**good, "text": "so " * 400})
    refuse("the model reads 512", good, max_new_tokens=500)
    assert not (tmp_path / "c").exists()


def test_the_answers_are_quiet(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    arm: models.Arm,
    capfd: pytest.CaptureFixture,
) -> None:
    generate(arm, asked(small.images), cache=tmp_path / "a", max_new_tokens=3)
    assert capfd.readouterr() == ("", "")
