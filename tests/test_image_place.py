"""Where an image stands in its turn: as the row has it, or in front, as LLaVA and the paper's code move it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import released_standins as standins
from tiny_fixtures import small  # noqa: F401 - a fixture
from transformers import LlavaProcessor

from sbt.data.conversations import parts, put_images, to_front
from sbt.inference import generation
from sbt.models import Arm, assemble, describe_arm, load_arm, save_arm, set_trainable, silence_libraries
from sbt.models.released.convert import convert
from sbt.training import Collator, Settings, labels, sft
from sbt.training.inspect import counter
from sbt.utils.errors import CheckpointError, ParameterError
from sbt.utils.files import read_json, write_json

ASKED = "What colour is it?"


def row(first: str, images: list[str], name: str = "r") -> dict:
    turns = [("user", first), ("assistant", "Red."), ("user", "Is it a star?"), ("assistant", "Yes.")]
    messages = [{"role": role, "content": parts(said)} for role, said in turns]
    return {"id": name, "images": images[: first.count("<image>")], "messages": messages}


@pytest.fixture(scope="module")
def processor(small: SimpleNamespace) -> LlavaProcessor:  # noqa: F811
    return assemble(small.llm, small.clip)[1]


def of_llava(value: str) -> str:
    """LLaVA's own lines (llava/train/train.py, `preprocess_multimodal`) for one turn."""
    if "<image>" in value:
        value = value.replace("<image>", "").strip()
        value = "<image>" + "\n" + value
        value = value.strip()
    return value


@pytest.mark.parametrize(
    "value",
    [
        f"{ASKED}\n<image>",
        f"<image>\n{ASKED}",
        f"<image>{ASKED}",
        f" \n{ASKED} <image> now \n",
        "<image>",
        "A\n\n<image>\n\nB",
        " no image \n",
    ],
)
def test_a_turn_is_rearranged_as_by_llavas_function(value: str) -> None:
    assert to_front(value) == of_llava(value)


def test_several_images_keep_their_number_and_a_row_is_copied_only_where_something_moves() -> None:
    assert to_front("Is <image> like <image>?") == "<image>\n<image>\nIs  like ?"
    one = row(f"{ASKED}\n<image>", ["a.png"])
    assert put_images(one, "as_written") is one
    moved = put_images(one, "front")
    assert moved["messages"][0]["content"] == [{"type": "image"}, {"type": "text", "text": f"\n{ASKED}"}]
    assert moved["messages"][1:] == one["messages"][1:] and one["messages"][0]["content"][0]["type"] == "text"


@pytest.mark.parametrize("name", ["v0", "v1", "llama_2", "llava_llama_2"])
def test_tokens_of_training_are_those_of_a_row_written_so(
    processor: LlavaProcessor,
    small: SimpleNamespace,  # noqa: F811
    name: str,
) -> None:
    behind, before = (row(text, small.images) for text in (f"{ASKED}\n<image>", f"<image>\n{ASKED}"))
    found = {place: labels(processor, [behind], name, None, place)[0] for place in ("as_written", "front")}
    assert found["front"] == labels(processor, [before], name)[0] != found["as_written"]
    count = counter(processor.tokenizer, name, 9, "front")
    assert count([behind]) == [len(found["front"][0])]


def test_a_training_run_reads_the_moved_image_and_the_instruction_after_it(
    processor: LlavaProcessor,
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    written = [row(f"{ASKED} {number}\n<image>", small.images, str(number)) for number in range(4)]
    moved = [put_images(one, "front") for one in written]
    hashes = {}
    for name, rows, place in (("a", written, "front"), ("b", moved, "as_written"), ("c", written, "as_written")):
        model, own = assemble(small.llm, small.clip)
        model = set_trainable(model, {"connector": "full", "language_model": "full"})
        loss = {"on": "instruction"}
        settings = Settings(max_steps=2, batch_size=2, image_place=place, loss=loss)
        hashes[name] = sft(model, own, rows, tmp_path / name, settings).weights_sha256
    assert hashes["a"] == hashes["b"] != hashes["c"]


def test_an_arm_is_asked_as_it_was_trained(small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    model, processor = assemble(small.llm, small.clip)
    prompts = {}
    for place in ("as_written", "front"):
        made = {"conversation": "v1", "language_model": small.llm, "vision_tower": small.clip, "image_place": place}
        save_arm(tmp_path / place, model, processor, **made)
        arm = load_arm(tmp_path / place)
        assert arm.image_place == place
        request = {"id": "0", "image": small.images[0], "text": f"{ASKED}\n<image>"}
        prompts[place] = generation.prompt_text(arm, request)
        plain = generation.prompt_text(arm, request | {"text": ASKED})
        assert plain == generation.prompt_text(arm, request | {"text": f"<image>\n{ASKED}"}), (
            "first where none is said"
        )
    assert "<image>\nWhat" in prompts["front"] and "?\n<image>" in prompts["as_written"]
    assert Arm(model, processor, "llava", "v1").image_place == "as_written"


@pytest.mark.parametrize("write", [standins.write_projector, standins.write_full, standins.write_lora])
def test_released_arms_are_asked_with_the_image_in_front(
    write: object,
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    with silence_libraries():
        write(tmp_path / "released", small)
    named = {"language_model": small.llm, "vision_tower": small.clip, "conversation": "v1"}
    convert(tmp_path / "released", tmp_path / "arm", **named)
    assert describe_arm(tmp_path / "arm")["image_place"] == "front"
    request = {"id": "0", "image": small.images[0], "text": f"{ASKED}\n<image>"}
    prompt = generation.prompt_text(load_arm(tmp_path / "arm"), request)
    assert prompt.index("<image>") < prompt.index(ASKED)


def test_an_unknown_place_is_one_clear_line(
    processor: LlavaProcessor,
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    words = "image_place 'frnt' is unknown; did you mean 'front'?"
    for make in (
        lambda: Settings(max_steps=1, image_place="frnt"),
        lambda: Collator(processor, "v1", image_place="frnt"),
        lambda: counter(processor.tokenizer, "v1", 9, "frnt"),
    ):
        with pytest.raises(ParameterError, match=words.replace("?", r"\?")):
            make()
    model, _ = assemble(small.llm, small.clip)
    save_arm(tmp_path / "arm", model, processor, conversation="v1", language_model=small.llm, vision_tower=small.clip)
    info = read_json(tmp_path / "arm" / "arm.json")
    write_json(tmp_path / "arm" / "arm.json", info | {"image_place": "behind"})
    with pytest.raises(CheckpointError, match="'image_place' must be one of as_written, front"):
        load_arm(tmp_path / "arm")
