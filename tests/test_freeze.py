"""What trains: parts in full beside LoRA, the markers alone, precision, quantization; and arms that keep all of it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_fixtures import small  # noqa: F401 - a fixture
from transformers import LlamaForCausalLM

from sbt import models
from sbt.models.image_markers import MarkedEmbedding, image_text, marker_rows
from sbt.models.text_arms import TextArms
from sbt.utils.errors import ParameterError

AUTHORS = ("embeddings", "head", "connector")
LORA = {"language_model": "lora"}
FULL = {"connector": "full", "language_model": "full"}


def built(small: SimpleNamespace, image_markers: bool = True, **options: object) -> tuple:  # noqa: F811
    return models.assemble(small.llm, small.clip, image_markers=image_markers, **options)


def names(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad and "lora_" not in name}


def batch(processor: object) -> dict:
    text = f"{image_text(processor.tokenizer, 1)}\n a star?"
    return dict(processor(images=Image.new("RGB", (30, 24), "red"), text=text, return_tensors="pt"))


def learn(model: torch.nn.Module, processor: object, steps: int = 3) -> torch.nn.Module:
    """A few steps of AdamW on one sentence about one picture, weight decay 0 as everywhere here."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0)
    inputs = batch(processor)
    model.train()
    for _ in range(steps):
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def logits(model: torch.nn.Module, processor: object) -> torch.Tensor:
    with torch.inference_mode():
        return model(**batch(processor)).logits


def save(folder: Path, small: SimpleNamespace, model: object, processor: object, **options: object) -> Path:  # noqa: F811
    parts = {"language_model": small.llm, "vision_tower": small.clip}
    models.save_arm(folder, model, processor, conversation="v1", **parts | options)
    return folder


# --- the markers -----------------------------------------------------------------------------------------------------


def test_marks_are_the_authors_tokens(small: SimpleNamespace) -> None:  # noqa: F811
    """Ids after the base's own: the image's, the start's, the end's; both rows the mean of the others, in and out."""
    base, _ = models.load_language_model(small.llm)
    model, processor = built(small)
    count, words = base.config.vocab_size, processor.tokenizer
    assert words.convert_tokens_to_ids(["<image>", "<im_start>", "<im_end>"]) == [count, count + 1, count + 2]
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        rows = layer.weight
        assert len(rows) == count + 3
        assert torch.allclose(rows[count + 1 :], rows[:count].mean(dim=0).expand(2, -1), atol=1e-6)
    ids = batch(processor)["input_ids"][0].tolist()
    at = [ids.index(count + k) for k in (1, 0, 2)]
    assert at[1] - at[0] == 1 and at[2] - at[0] == 1 + 9, "start, nine features, end"
    assert image_text(built(small, image_markers=False)[1].tokenizer, 1) == "<image>"


def test_stage_1_trains_the_two_rows_and_the_connector_alone(small: SimpleNamespace) -> None:  # noqa: F811
    model, processor = built(small)
    model = models.set_trainable(model, {"connector": "full"}, also=["image_markers"])
    assert {name.rpartition("model.")[2] for name in names(model)} == {
        "multi_modal_projector.linear_1.weight", "multi_modal_projector.linear_1.bias", "embed_tokens.markers",
    }  # fmt: skip
    before, rows = model.get_input_embeddings().weight.clone(), marker_rows(model)
    head = model.get_output_embeddings().weight.clone()
    first = logits(model, processor)
    learn(model, processor)
    assert torch.equal(model.get_input_embeddings().weight, before) and torch.equal(model.lm_head.weight, head)
    after = marker_rows(model)
    assert all(not torch.equal(rows[token], after[token]) for token in ("<im_start>", "<im_end>"))
    assert not torch.equal(first, logits(model, processor))
    table = models.freeze_table(model).set_index("part")["trained"]
    assert table["image markers"] == 2 * 32 and table["language model"] == 0


def test_control_without_the_marks_the_rows_stay(small: SimpleNamespace) -> None:  # noqa: F811
    model, processor = built(small)
    learn(models.set_trainable(model, {"connector": "full"}), processor)
    assert torch.equal(marker_rows(model)["<im_start>"], marker_rows(built(small)[0])["<im_start>"])
    assert not isinstance(model.get_input_embeddings(), MarkedEmbedding)


def test_the_next_stage_starts_from_the_trained_rows(small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    """A connector arm keeps the rows; so does a LoRA arm over it, with embeddings that train or that do not."""
    model, processor = built(small)
    learn(models.set_trainable(model, {"connector": "full"}, also=["image_markers"]), processor)
    stage_1 = save(tmp_path / "connector", small, model, processor, connector_only=True)
    wanted = logits(model, processor)
    arm = models.load_arm(stage_1)
    assert torch.allclose(logits(arm.model, arm.processor), wanted, atol=1e-5)
    for also in (AUTHORS, ("connector",), ("connector", "image_markers")):
        arm = models.load_arm(stage_1)
        tuned = models.set_trainable(arm.model, LORA, {"r": 4}, also=also)
        learn(tuned, arm.processor)
        folder = save(tmp_path / "-".join(("lora", *also)), small, tuned, arm.processor, connector=stage_1, arm="a")
        wanted = logits(tuned, arm.processor)
        again = models.load_arm(folder, merge=False)
        assert torch.allclose(logits(again.model, again.processor), wanted, atol=1e-5), also
    arm = models.load_arm(stage_1)
    full = learn(models.set_trainable(arm.model, FULL), arm.processor)
    folder = save(tmp_path / "full", small, full, arm.processor, arm="a")
    again = models.load_arm(folder)
    assert torch.equal(logits(again.model, again.processor), logits(full, arm.processor))
    assert not (folder / "image_markers.safetensors").exists() and again.model.config.marker_token_ids


@pytest.mark.parametrize("lora", ["switched", "merged"])
def test_text_of_a_marked_lora_arm(small: SimpleNamespace, tmp_path: Path, lora: str) -> None:  # noqa: F811
    """The language model taken out has the markers' rows too, which the trained embeddings need."""
    model, processor = built(small)
    tuned = learn(models.set_trainable(model, LORA, {"r": 4}, also=AUTHORS), processor)
    folder = save(tmp_path / "arm", small, tuned, processor, arm="a")
    arms = TextArms({"base": str(small.llm), "a": str(folder)}, lora=lora)
    arm = arms.load("a")
    ids = torch.tensor([[5, 9, 11]])
    with torch.inference_mode():
        wanted = tuned(input_ids=ids).logits
        assert torch.allclose(arm.model(input_ids=ids).logits, wanted, atol=1e-5)
        assert arms.load("base").model(input_ids=ids).logits.shape[-1] == wanted.shape[-1] - 3


# --- also -----------------------------------------------------------------------------------------------------------


def test_beside_lora_train_the_parts_that_are_named(small: SimpleNamespace) -> None:  # noqa: F811
    def trained(also: tuple) -> set[str]:
        found = names(models.set_trainable(built(small)[0], LORA, {"r": 4}, also=also))
        return {name.replace(".modules_to_save.default", "").rpartition("model.")[2] for name in found}

    connector = {"multi_modal_projector.linear_1.weight", "multi_modal_projector.linear_1.bias"}
    assert trained(()) == set()
    assert trained(("connector",)) == connector
    assert trained(AUTHORS) == connector | {"embed_tokens.weight", "lm_head.weight"}
    text, _ = models.load_language_model(small.llm)
    assert len(names(models.set_trainable(text, LORA, {"r": 4}, also=AUTHORS))) == 2, "there is no connector"


def test_the_originals_do_not_change(small: SimpleNamespace) -> None:  # noqa: F811
    """What trains beside LoRA is a copy: without adapters the model is the base."""
    model, processor = built(small)
    wanted = logits(model, processor)
    tuned = learn(models.set_trainable(model, LORA, {"r": 4}, also=AUTHORS), processor)
    assert not torch.allclose(logits(tuned, processor), wanted)
    with tuned.disable_adapter():
        assert torch.equal(logits(tuned, processor), wanted)


def tied(small: SimpleNamespace, folder: Path) -> Path:  # noqa: F811
    """A copy of the small Llama whose embedding is its head."""
    model, words = models.load_language_model(small.llm)
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    with models.silence_libraries():
        model.save_pretrained(folder)
        words.save_pretrained(folder)
    return folder


def test_tied_embeddings_are_kept_whole(small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    base = tied(small, tmp_path / "tied")
    model, processor = models.assemble(base, small.clip, image_markers=True)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    with pytest.raises(ParameterError, match="'embeddings': embedding and head are one matrix"):
        models.set_trainable(model, LORA, also=AUTHORS)
    learn(models.set_trainable(model, FULL), processor)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    folder = save(tmp_path / "arm", small, model, processor, language_model=base, arm="a")
    again = models.load_arm(folder)
    assert again.model.lm_head.weight is again.model.get_input_embeddings().weight
    assert torch.equal(logits(again.model, again.processor), logits(model, processor))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda model: models.set_trainable(model, LORA, also=["embedings"]), "did you mean 'embeddings'"),
        (lambda model: models.set_trainable(model, {}, also=["image_markers"]), "<im_end>: set image_markers"),
        (lambda model: models.set_trainable(model, FULL, compute="half"), "compute='half' is unknown"),
    ],
)
def test_wrong_values_are_named(small: SimpleNamespace, call: Callable, expected: str) -> None:  # noqa: F811
    with pytest.raises(ParameterError, match=expected):
        call(built(small, image_markers=False)[0])


# --- precision and quantization -------------------------------------------------------------------------------------


def test_trained_weights_are_float32_and_frozen_ones_half(small: SimpleNamespace) -> None:  # noqa: F811
    for policy, also in ((FULL, ()), (LORA, AUTHORS), ({"connector": "full"}, ("image_markers",))):
        model = models.set_trainable(built(small)[0], policy, {"r": 4}, also=also, compute="bfloat16")
        found = {(parameter.requires_grad, parameter.dtype) for parameter in model.parameters()}
        assert found == {(True, torch.float32), (False, torch.bfloat16)}
        with torch.autocast("cpu", torch.bfloat16):
            inputs = batch(built(small)[1])
            loss = model(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_small_updates_survive_in_float32_alone() -> None:
    """Why: at the authors' rate a step is lost in bfloat16."""
    for dtype, moved in ((torch.float32, True), (torch.bfloat16, False)):
        weight = torch.nn.Parameter(torch.ones(4, dtype=dtype))
        weight.grad = torch.ones_like(weight)
        torch.optim.AdamW([weight], lr=2e-5, weight_decay=0).step()
        assert bool((weight != 1).all()) is moved


def test_a_tuned_arm_keeps_float32_beside_a_half_precision_tower(
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    model, processor = built(small)
    models.set_trainable(model, FULL, compute="bfloat16")
    folder = save(tmp_path / "arm", small, model, processor, arm="a")
    assert models.load_arm(folder).info["dtype"] == "float32"


def test_quantization_is_refused_before_anything_is_loaded(
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ParameterError, match="needs an NVIDIA GPU, and there is none: set quantization to"):
        built(small, quantization="4bit")
    with pytest.raises(ParameterError, match="quantization='8bit' is unknown; did you mean '4bit'"):
        models.load_language_model(small.llm, quantization="8bit")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"needs bitsandbytes: pip install -e '.\[gpu\]'"):
        models.load_arm(small.llm, quantization="4bit")


def test_quantized_weights_take_adapters_only(small: SimpleNamespace) -> None:  # noqa: F811
    model, _ = built(small)
    model.is_loaded_in_4bit = True
    with pytest.raises(ParameterError, match="4-bit weights cannot be trained: set tuning to lora"):
        models.set_trainable(model, FULL)


def test_bin_weights_are_read_where_there_are_no_others(small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    """Vicuna and OpenLLaMA have no safetensors."""
    model, words = models.load_language_model(small.llm)
    words.save_pretrained(tmp_path)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    again, _ = models.load_language_model(tmp_path)
    assert isinstance(again, LlamaForCausalLM) and models.weights_sha256(again) == models.weights_sha256(model)
