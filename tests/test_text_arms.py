"""The language model inside each arm: taken out, shared, switched; equal on text to what it was taken from."""

import gc
import json
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_fixtures import small  # noqa: F401 - a fixture
from transformers import AutoTokenizer, LlamaForCausalLM

from sbt import models
from sbt.models import TextArms
from sbt.models.freeze import lora_targets
from sbt.utils.errors import CheckpointError, ParameterError
from sbt.utils.files import file_hash

IDS = torch.tensor([[1, 50, 60, 70, 80, 90, 11]])
LLAVA_KEY = "base_model.model.model.language_model."


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def shaken(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Change what trains, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.1)
    return model.eval()


def save(folder: Path, small: SimpleNamespace, model: object, processor: object, **kept: object) -> Path:  # noqa: F811
    vision = None if isinstance(model, LlamaForCausalLM) else small.clip
    options = {"conversation": "v1", "language_model": small.llm, "vision_tower": vision}
    models.save_arm(folder, model, processor, **options | kept)
    return folder


def lora(
    folder: Path,
    small: SimpleNamespace,  # noqa: F811
    seed: int,
    *,
    save_too: tuple = (),
    alone: bool = False,
    dtype: str = "float32",
    **options: object,
) -> Path:
    """A LoRA arm: in a LLaVA, with the connector, or of a language model `alone`."""
    if alone:
        model, processor = models.load_language_model(small.llm, dtype=dtype)
    else:
        model, processor = models.assemble(small.llm, small.clip, dtype=dtype)
        save_too = ("multi_modal_projector.linear_1", *save_too)
    config = LoraConfig(
        target_modules=lora_targets(model),
        modules_to_save=list(save_too) or None,
        task_type="CAUSAL_LM",
        **({"r": 4} | options),
    )
    with models.silence_libraries():
        model = get_peft_model(model, config)
    return save(folder, small, shaken(model, seed), processor, vision_tower=None if alone else small.clip)


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory, small: SimpleNamespace) -> dict[str, str]:  # noqa: F811
    """base, full fine-tuning, three LoRA arms over the base, one of them with embeddings and lm_head."""
    folder = tmp_path_factory.mktemp("arms")
    model, processor = models.assemble(small.llm, small.clip)
    full = models.set_trainable(model, {"connector": "full", "language_model": "full"})
    return {
        "base": str(small.llm),
        "full": str(save(folder / "full", small, shaken(full, 1), processor)),
        "one": str(lora(folder / "one", small, 2)),
        "two": str(lora(folder / "two", small, 3, save_too=("embed_tokens", "lm_head", "language_model.norm"))),
        "text": str(lora(folder / "text", small, 4, alone=True)),
    }


def test_full_fine_tuning_is_equal_on_text(arms: dict) -> None:
    arm = TextArms(arms).load("full")
    llava = models.load_arm(arms["full"])
    assert type(llava.model).__name__ == "LlavaForConditionalGeneration"
    assert isinstance(arm.model, LlamaForCausalLM)
    assert arm.tokenizer.chat_template == llava.processor.chat_template is not None
    assert torch.equal(logits(arm.model), logits(llava.model))
    assert not torch.allclose(logits(arm.model)[..., :330], logits(TextArms(arms).load("base").model), atol=1e-2)


def test_the_base_is_bit_for_bit_the_base_alone_whatever_shares_it(arms: dict, small: SimpleNamespace) -> None:  # noqa: F811
    alone = logits(LlamaForCausalLM.from_pretrained(small.llm))
    for order in (["base", "one", "two"], ["two", "one", "base"], ["one", "base", "text"]):
        held = TextArms({name: arms[name] for name in order})
        for name in order:
            assert logits(held.load(name).model).shape[-1] == len(held.load(name).tokenizer)
        assert torch.equal(logits(held.load("base").model), alone)
        assert held.load("base").model.config.vocab_size == alone.shape[-1] == 330
        assert held.loads == [str(small.llm.resolve())]


@pytest.mark.parametrize("name", ["one", "two", "text"])
def test_switched_equals_merged_and_the_unmerged_arm(arms: dict, name: str) -> None:
    whole = models.load_arm(arms[name], merge=False)
    assert isinstance(whole.model, PeftModel)
    switched, merged = TextArms(arms).load(name), TextArms(arms, lora="merged").load(name)
    assert torch.equal(logits(switched.model), logits(whole.model))
    assert torch.allclose(logits(switched.model), logits(merged.model), atol=1e-5)
    assert not torch.allclose(logits(switched.model)[..., :330], logits(TextArms(arms).load("base").model), atol=1e-2)
    assert not any("lora_" in key for key, _ in merged.model.named_parameters())
    for arm in (switched, merged):
        assert arm.tokenizer.get_vocab() == whole.tokenizer.get_vocab()
        assert arm.tokenizer.chat_template == whole.processor.chat_template is not None
        assert not arm.model.training


def test_the_adapter_alone_is_the_arm_where_nothing_else_was_trained(arms: dict) -> None:
    for name in ("one", "text"):
        switched, adapter = TextArms(arms).load(name), TextArms(arms, lora="adapter").load(name)
        rows = logits(adapter.model).shape[-1]
        assert rows == 330  # the base's own vocabulary
        assert "<image>" not in adapter.tokenizer.get_vocab()
        assert torch.allclose(logits(switched.model)[..., :rows], logits(adapter.model), atol=1e-6)


def test_the_adapter_alone_leaves_out_what_was_trained_in_full(
    arms: dict,
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    switched, adapter = TextArms(arms).load("two"), TextArms(arms, lora="adapter").load("two")
    assert not torch.allclose(logits(switched.model)[..., :330], logits(adapter.model), atol=1e-2)
    # by hand: the adapter in the form an ordinary tool reads, over the base
    tensors = load_file(Path(arms["two"]) / "adapter_model.safetensors")
    tensors = {key.replace("language_model.", ""): tensor for key, tensor in tensors.items() if "lora_" in key}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = json.loads((Path(arms["two"]) / "adapter_config.json").read_text())
    config |= {"target_modules": r"model\.layers\..*_proj", "modules_to_save": None}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    by_hand = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(small.llm), tmp_path)
    assert torch.equal(logits(by_hand.eval()), logits(adapter.model))


def test_one_base_is_loaded_for_all_arms_over_it(arms: dict, small: SimpleNamespace) -> None:  # noqa: F811
    base = str(small.llm.resolve())
    held = TextArms(arms)
    assert [arm.name for arm in held] == list(held.order) == ["base", "one", "two", "text", "full"]
    assert held.loads == [base, arms["full"]]
    merged = TextArms(arms, lora="merged")
    assert [arm.name for arm in merged] == list(arms)
    assert merged.loads == [base, arms["full"], base, base, base]


def test_layers_share_memory_and_the_next_full_model_frees_it(arms: dict) -> None:
    held = TextArms(arms)
    base, one, two = (held.load(name).model for name in ("base", "one", "two"))
    for pick in (lambda m: m.model.layers[1].mlp.up_proj, lambda m: m.model.embed_tokens, lambda m: m.lm_head):
        ours, theirs = pick(base), pick(one)
        assert ours.weight.data_ptr() == theirs.weight.data_ptr()
    assert two.lm_head.weight.data_ptr() != base.lm_head.weight.data_ptr()
    assert not any("lora_" in name for name, _ in base.named_parameters())
    before = logits(one)
    assert held.load("one").model is one
    assert torch.equal(logits(one), before)
    gone = weakref.ref(two)
    del two
    held.load("full")
    assert all(tensor.numel() == 0 for model in (base, one) for tensor in model.parameters())
    gc.collect()
    assert gone() is None
    assert torch.equal(logits(held.load("one").model), before)
    assert len(held.loads) == 3


def test_samples_of_the_weights_tell_the_shared_models_apart(arms: dict) -> None:
    held = TextArms(arms)
    samples = {name: models.weights_sample(held.load(name).model) for name in ("base", "one", "two", "text")}
    assert len(set(samples.values())) == 4
    assert samples == {name: models.weights_sample(held.load(name).model) for name in samples}


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {r".*language_model\.layers\.1\.mlp\..*": 6, "q_proj": 2}},
        {"alpha_pattern": {r"model\.language_model\.layers\.0\.self_attn\.q_proj": 64, "down_proj": 32}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_the_adapter_are_honoured(
    arms: dict,
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
    options: dict,
) -> None:
    folder = lora(tmp_path / "arm", small, 5, lora_alpha=16, **options)
    whole = models.load_arm(folder, merge=False)
    switched = TextArms({"arm": folder}).load("arm")
    assert torch.allclose(logits(switched.model), logits(whole.model), atol=1e-6)
    # control: without the option the same tensors are another function, or do not fit
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {key: LoraConfig().to_dict()[key] for key in options}))
    held = TextArms({"arm": folder})
    if "use_dora" in options or "rank_pattern" in options:
        with pytest.raises(CheckpointError, match="adapter_model.safetensors: .*lora_.* is .* the model has"):
            held.load("arm")
    else:
        assert not torch.allclose(logits(held.load("arm").model), logits(whole.model), atol=1e-3)


@pytest.mark.parametrize(
    "option", [{"bias": "lora_only"}, {"init_lora_weights": "pissa"}, {"trainable_token_indices": [1]}, {"newer": 1}]
)
def test_an_option_that_cannot_be_honoured_is_an_error(arms: dict, tmp_path: Path, option: dict) -> None:
    folder = copied(arms["one"], tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | option))
    with pytest.raises(CheckpointError, match=rf"adapter_config.json: {next(iter(option))}=.* lora='merged'"):
        TextArms({"arm": folder}).load("arm")


def copied(source: str, folder: Path, change: object = None) -> Path:
    """A copy of an arm over the same base; `change` edits its tensors, and the recorded SHA-256 follows."""
    source = Path(source)
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    info = json.loads((source / "arm.json").read_text())
    for part in ("language_model", "vision_tower"):
        info[part] = info[part] and str((source / info[part]).resolve())
    file = folder / "adapter_model.safetensors"
    if change is not None:
        tensors = load_file(file)
        change(tensors)
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, file)
        info["files"] = {file.name: file_hash(file)}
    (folder / "arm.json").write_text(json.dumps(info))
    return folder


UP = f"{LLAVA_KEY}layers.0.mlp.up_proj.lora_A.weight"
DAMAGE = {
    "foreign": (lambda t: t.update({"base_model.model.model.vision_tower.x.lora_A.weight": t[UP]}), "vision_tower.x"),
    "no module": (lambda t: t.update({UP.replace("up_", "side_"): t[UP]}), "side_proj.lora_A.weight belongs to no"),
    "no parameter": (lambda t: t.update({f"{LLAVA_KEY}norm.bias": torch.zeros(32)}), "norm.bias .*nothing of that"),
    "unknown kind": (lambda t: t.update({UP.replace("lora_A", "lora_C"): t[UP]}), "lora_C.weight .*nothing of that"),
    "shape": (lambda t: t.update({UP: t[UP][:, :5].contiguous()}), r"up_proj.lora_A.weight is \(4, 5\).*\(4, 32\)"),
    "saved shape": (
        lambda t: t.update({"base_model.model.lm_head.weight": torch.zeros(9, 32)}),
        r"lm_head.*\(9, 32\)",
    ),
    "half": (lambda t: t.pop(UP), r"holds no .*up_proj.lora_A.weight"),
    "none": (lambda t: [t.pop(key) for key in list(t) if "lora_" in key], "no low-rank adapters"),
    "prefix": (lambda t: t.update({"model.norm.weight": torch.ones(32)}), "model.norm.weight is no key"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_tensors_that_do_not_fit_are_named(arms: dict, tmp_path: Path, name: str) -> None:
    change, message = DAMAGE[name]
    folder = copied(arms["one"], tmp_path, change)
    held = TextArms({"base": arms["base"], "arm": folder})
    before = logits(held.load("base").model)
    with pytest.raises(CheckpointError, match=f"adapter_model.safetensors: .*{message}"):
        held.load("arm")
    assert torch.equal(logits(held.load("base").model), before)


def test_weights_that_are_not_what_was_saved_are_refused(arms: dict, tmp_path: Path) -> None:
    folder = copied(arms["one"], tmp_path)
    assert torch.equal(logits(TextArms({"arm": folder}).load("arm").model), logits(TextArms(arms).load("one").model))
    file = folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for mode in ("switched", "adapter", "merged"):
        with pytest.raises(CheckpointError, match="its SHA-256 differs"):
            TextArms({"arm": folder}, lora=mode).load("arm")


def test_a_base_that_knows_the_image_token_or_ties_its_matrices(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    words = AutoTokenizer.from_pretrained(small.llm)
    model = LlamaForCausalLM.from_pretrained(small.llm)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    for knows in (False, True):
        if knows:
            words.add_special_tokens({"additional_special_tokens": ["<image>"]})
            model.resize_token_embeddings(331)
        base = tmp_path / f"base{knows}"
        model.save_pretrained(base)
        words.save_pretrained(base)
        folder = lora(tmp_path / f"arm{knows}", SimpleNamespace(llm=base, clip=small.clip), 6)
        held = TextArms({"base": base, "arm": folder})
        assert torch.equal(logits(held.load("arm").model), logits(models.load_arm(folder, merge=False).model))
        alone = LlamaForCausalLM.from_pretrained(base)
        assert torch.equal(logits(held.load("base").model), logits(alone))
        assert logits(alone).shape[-1] == (331 if knows else 330)
        shared = held.load("base").model
        assert shared.lm_head.weight is shared.model.embed_tokens.weight


def test_half_precision_is_one_base_of_its_own(arms: dict, tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    folder = lora(tmp_path / "half", small, 7, save_too=("lm_head",), dtype="bfloat16")
    held = TextArms({"base": arms["base"], "half": folder, "one": arms["one"]})
    assert held.order == ("base", "one", "half")
    assert held.load("half").model.lm_head.weight.dtype == torch.bfloat16
    assert logits(held.load("half").model).isfinite().all()
    assert held.load("one").model.dtype == torch.float32
    same = TextArms({"base": arms["base"], "half": folder, "one": arms["one"]}, dtype="bfloat16")
    assert {arm.model.dtype for arm in same} == {torch.bfloat16}
    assert len(same.loads) == 1


def test_wrong_names_are_errors_with_a_suggestion(arms: dict, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="lora='merge' is unknown; did you mean 'merged'"):
        TextArms(arms, lora="merge")
    with pytest.raises(ParameterError, match="'ful' is unknown; did you mean 'full'"):
        TextArms(arms).load("ful")
    with pytest.raises(CheckpointError, match="outputs/none does not exist"):
        TextArms({"x": "outputs/none"})
    (tmp_path / "arm.json").write_text("[]")
    with pytest.raises(CheckpointError, match="'kind' must be one of"):
        TextArms({"x": tmp_path}).load("x")


def test_loading_is_quiet_and_leaves_the_random_stream_alone(arms: dict, capfd: pytest.CaptureFixture) -> None:
    state = torch.get_rng_state()
    for mode in ("switched", "merged", "adapter"):
        assert len(list(TextArms(arms, lora=mode))) == 5
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)
