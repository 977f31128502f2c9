"""Assembling, freezing, saving and loading the study's models."""

import ast
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_fixtures import small  # noqa: F401 - a fixture
from transformers import AutoModelForCausalLM, LlamaForCausalLM, LlavaForConditionalGeneration

from sbt import models
from sbt.models.freeze import lora_targets
from sbt.models.llava import connector_state
from sbt.utils import paths
from sbt.utils.errors import CheckpointError, ParameterError

FULL = {"connector": "full", "language_model": "full"}
LORA = {"connector": "full", "language_model": "lora"}


def built(small: SimpleNamespace, policy: dict | None = None, **options: object) -> tuple:  # noqa: F811
    model, processor = models.assemble(small.llm, small.clip, **options)
    return (models.set_trainable(model, policy, {"r": 4}) if policy else model), processor


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Change what trains, as training would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def saved(folder: Path, small: SimpleNamespace, model: object, processor: object, **options: object) -> Path:  # noqa: F811
    options = {"conversation": "v1", "language_model": small.llm, "vision_tower": small.clip} | options
    models.save_arm(folder, model, processor, **options)
    return folder


def looked(model: torch.nn.Module, processor: object) -> torch.Tensor:
    inputs = processor(images=Image.new("RGB", (30, 24), "red"), text="<image> a star?", return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).logits


def test_the_connector_is_one_linear_layer(small: SimpleNamespace) -> None:  # noqa: F811
    model, _ = built(small)
    projector = model.model.multi_modal_projector
    features = torch.randn(5, 32)
    assert torch.equal(projector(features), projector.linear_1(features))
    mlp, _ = built(small, projector="mlp2x_gelu")
    layers = mlp.model.multi_modal_projector
    assert torch.equal(layers(features), layers.linear_2(torch.nn.functional.gelu(layers.linear_1(features))))


def test_the_parts_are_those_of_the_checkpoints(small: SimpleNamespace) -> None:  # noqa: F811
    model, processor = built(small)
    base = AutoModelForCausalLM.from_pretrained(small.llm)
    assert torch.equal(
        model.model.language_model.layers[0].mlp.up_proj.weight, base.model.layers[0].mlp.up_proj.weight
    )
    tower = load_file(small.clip / "model.safetensors")["vision_model.pre_layrnorm.weight"]
    assert torch.equal(model.model.vision_tower.pre_layrnorm.weight, tower)
    rows = model.get_input_embeddings().weight
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == len(rows) - 1
    assert torch.allclose(rows[-1], rows[:-1].mean(dim=0))
    assert not model.training


def test_the_seed_decides_the_connector_only(small: SimpleNamespace) -> None:  # noqa: F811
    one, two, three = (built(small, seed=seed)[0] for seed in (0, 0, 1))
    assert models.weights_sha256(one) == models.weights_sha256(two) != models.weights_sha256(three)
    torch.manual_seed(7)  # the global stream must not matter
    assert models.weights_sha256(built(small, seed=0)[0]) == models.weights_sha256(one)


def test_logits_survive_the_ordinary_way_of_loading(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    model, processor = built(small, FULL)
    folder = saved(tmp_path / "x", small, shaken(model), processor)
    plain = LlavaForConditionalGeneration.from_pretrained(folder)
    assert torch.equal(looked(plain, processor), looked(model, processor))


def test_the_freeze_table_counts_what_trains(small: SimpleNamespace) -> None:  # noqa: F811
    counts = {
        name: dict(models.freeze_table(built(small, policy)[0]).set_index("part")["trained"])
        for name, policy in {"stage 1": {"connector": "full"}, "full": FULL, "lora": LORA}.items()
    }
    projector, language = 32 * 32 + 32, 331 * 32 * 2 + 2 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32
    adapters = 2 * 4 * (4 * (32 + 32) + 3 * (32 + 48))
    fixed = {"vision tower": 0, "connector": projector, "connector, fixed identity": 0}
    assert counts["stage 1"] == {**fixed, "language model": 0}
    assert counts["full"] == {**fixed, "language model": language}
    assert counts["lora"] == {**fixed, "language model": 0, "LoRA adapters": adapters}


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear"])
def test_control_lora_by_suffix_hits_the_vision_tower(small: SimpleNamespace, targets: object) -> None:  # noqa: F811
    config = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    names = [name for name, _ in get_peft_model(built(small)[0], config).named_parameters() if "lora_" in name]
    assert any("vision_tower" in name for name in names)
    ours = [name for name, _ in built(small, LORA)[0].named_parameters() if "lora_" in name]
    assert len(ours) == 2 * 2 * 7
    assert all(".language_model.layers." in name for name in ours)


def test_lora_targets_a_language_model_alone_too(small: SimpleNamespace) -> None:  # noqa: F811
    model, _ = models.load_language_model(small.llm)
    pattern = lora_targets(model)
    hits = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
    assert len(hits) == 2 * 7
    wrapped = models.set_trainable(model, {"language_model": "lora"}, {"r": 4})
    assert sum("lora_" in name for name, _ in wrapped.named_parameters()) == 28


def test_a_trained_vision_tower_or_identity_is_refused(small: SimpleNamespace) -> None:  # noqa: F811
    model, _ = built(small)
    with pytest.raises(ParameterError, match="vision_tower='full'"):
        models.set_trainable(model, {"vision_tower": "full"})
    with pytest.raises(ParameterError, match="conector='full'"):
        models.set_trainable(model, {"conector": "full"})
    with pytest.raises(ParameterError, match="the vision tower and the identity layer stay frozen"):
        from sbt.models.freeze import check_frozen

        check_frozen(model.requires_grad_(True))


@pytest.mark.parametrize("policy", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
def test_arms_come_back_bit_for_bit(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    policy: dict,
    projector: str,
) -> None:
    model, processor = built(small, policy, projector=projector, seed=3)
    connector = saved(tmp_path / "stage1", small, shaken(built(small, {"connector": "full"}, projector=projector)[0]),
                      processor, connector_only=True)  # fmt: skip
    model, processor = built(small, policy, projector=projector, connector=connector)
    folder = saved(tmp_path / "arm", small, shaken(model), processor, connector=connector)
    arm = models.load_arm(folder, merge=False)
    assert arm.kind == ("llava" if policy is FULL else "llava-lora")
    assert arm.has_vision
    assert arm.conversation == "v1"
    assert models.weights_sha256(arm.model) == models.weights_sha256(model)
    assert torch.equal(looked(arm.model, arm.processor), looked(model, processor))
    merged = models.load_arm(folder)
    assert torch.allclose(looked(merged.model, merged.processor), looked(model, processor), atol=1e-5)


def test_a_connector_is_small_and_comes_back(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    model, processor = built(small, {"connector": "full"})
    folder = saved(tmp_path / "c", small, shaken(model), processor, conversation="plain", connector_only=True)
    assert sorted(file.name for file in folder.iterdir()) == ["arm.json", "connector.safetensors"]
    arm = models.load_arm(folder)
    assert arm.kind == "connector"
    assert models.weights_sha256(arm.model) == models.weights_sha256(model)
    again, _ = models.assemble(small.llm, small.clip, folder)
    assert models.weights_sha256(again) == models.weights_sha256(model)


def test_language_model_arms_come_back(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    for kind, policy in (("lm", {"language_model": "full"}), ("lm-lora", {"language_model": "lora"})):
        model, words = models.load_language_model(small.llm)
        model = shaken(models.set_trainable(model, policy, {"r": 4}))
        folder = saved(tmp_path / kind, small, model, words, vision_tower=None)
        arm = models.load_arm(folder, merge=False)
        assert (arm.kind, arm.has_vision) == (kind, False)
        assert models.weights_sha256(arm.model) == models.weights_sha256(model)


def test_a_plain_checkpoint_is_an_arm_by_its_content(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    arm = models.load_arm(small.llm)
    assert (arm.kind, arm.conversation, arm.has_vision) == ("lm", None, False)
    with pytest.raises(ParameterError, match="'clip' model is no arm"):
        models.load_arm(small.clip)


def test_the_language_model_is_the_same_on_text(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    ids = torch.tensor([[1, 50, 60, 70, 80]])
    model, processor = built(small, FULL)
    arm = models.Arm(shaken(model), processor, "llava", "v1")
    alone, words = models.language_model(arm)
    assert isinstance(alone, LlamaForCausalLM)
    assert words is processor.tokenizer
    assert alone.lm_head.weight is model.lm_head.weight
    with torch.inference_mode():
        assert torch.equal(alone(ids).logits, model(input_ids=ids).logits)
        wrapped, _ = built(small, LORA)
        arm = models.Arm(shaken(wrapped), processor, "llava-lora", "v1")
        before = models.weights_sha256(wrapped)
        assert torch.equal(models.language_model(arm)[0](ids).logits, wrapped(input_ids=ids).logits)
        assert models.weights_sha256(wrapped) == before
        folder = saved(tmp_path / "lora", small, wrapped, processor)
        merged = models.language_model(models.load_arm(folder))[0]
        assert torch.allclose(merged(ids).logits, wrapped(input_ids=ids).logits, atol=1e-5)
    base = models.load_arm(small.llm)
    assert models.language_model(base)[0] is base.model


def test_damaged_weights_are_named_with_the_remedy(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    model, processor = built(small, FULL)
    folder = saved(tmp_path / "arm", small, model, processor)
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="arm") as caught:
        models.load_arm(folder)
    assert re.search("[Rr]estore|make them again", str(caught.value))
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"model.safetensors is not what was saved: its SHA-256 differs"):
        models.load_arm(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors is missing"):
        models.load_arm(folder)


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    model, words = models.load_language_model(small.llm)
    with models.silence_libraries():
        model.save_pretrained(tmp_path)
        words.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("model.norm.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"1 weights of LlamaForCausalLM missing or misshapen: model.norm.weight"
    ):
        models.load_arm(tmp_path)


def test_bad_references_and_files_are_named(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    with pytest.raises(CheckpointError, match="assets/nowhere does not exist"):
        models.assemble("assets/nowhere", small.clip)
    with pytest.raises(CheckpointError, match="no model's configuration can be read"):
        models.assemble(small.llm, tmp_path)
    with pytest.raises(CheckpointError, match=r"neither arm.json nor a model's config.json"):
        models.load_arm(tmp_path)
    (tmp_path / "arm.json").write_text('{"kind": "mystery"}')
    with pytest.raises(CheckpointError, match="'kind' must be one of"):
        models.load_arm(tmp_path)
    (tmp_path / "arm.json").write_text('{"kind": ')
    with pytest.raises(CheckpointError, match=r"arm.json:1:10: malformed JSON"):
        models.load_arm(tmp_path)
    with pytest.raises(ParameterError, match="projector 'resampler' is unknown"):
        models.assemble(small.llm, small.clip, projector="resampler")


def test_a_connector_of_another_shape_is_refused(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    state = connector_state(built(small)[0])
    save_file(
        {name: tensor[..., :8].contiguous() for name, tensor in state.items()}, tmp_path / "connector.safetensors"
    )
    with pytest.raises(
        CheckpointError, match=r"holds linear_1.bias \(8,\).*this model's connector is linear_1.bias \(32,\)"
    ):
        models.assemble(small.llm, small.clip, tmp_path)


def test_arm_files_name_parts_relative_to_themselves(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    folder = saved(tmp_path / "arm", small, *built(small, FULL), note="kept")
    info = json.loads((folder / "arm.json").read_text())
    assert not Path(info["language_model"]).is_absolute()
    assert (folder / info["language_model"]).resolve() == small.llm.resolve()
    assert (info["note"], info["projector"], info["dtype"]) == ("kept", "linear", "float32")
    assert (folder / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_half_precision_on_disk_trains_in_what_is_asked_for(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    model, words = models.load_language_model(small.llm, dtype="float16")
    with models.silence_libraries():
        model.save_pretrained(tmp_path)
        words.save_pretrained(tmp_path)
    assert models.assemble(tmp_path, small.clip)[0].dtype == torch.float32
    assert models.assemble(tmp_path, small.clip, dtype="bfloat16")[
        0
    ].model.multi_modal_projector.linear_1.weight.dtype == (torch.bfloat16)


def test_loading_and_saving_are_quiet(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    capfd: pytest.CaptureFixture,
) -> None:
    models.load_arm(saved(tmp_path / "a", small, *built(small, LORA)))
    assert capfd.readouterr() == ("", "")


# --- no code of a model folder runs; what is damaged is said in one line ------------------------------------------


def test_every_from_pretrained_refuses_remote_code() -> None:
    sources = {str(file): file.read_text() for file in paths.package().rglob("*.py")}
    for file in (paths.package().parent / "notebooks").glob("*.ipynb"):
        cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
        sources |= {f"{file} {number}": "".join(cell["source"]) for number, cell in enumerate(cells)}
    calls = 0
    for name, source in sources.items():
        for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
            method = call.func
            if not isinstance(method, ast.Attribute) or method.attr != "from_pretrained":
                continue
            if isinstance(method.value, ast.Name) and method.value.id == "PeftModel":
                continue  # has no such option: it reads adapters of known kinds
            calls += 1
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            known = given.get("trust_remote_code")
            refused = isinstance(known, ast.Constant) and known.value is False
            assert refused or (None in given and '"trust_remote_code": False' in source), f"{name}:{call.lineno}"
    assert calls > 5


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_folder_with_code_of_its_own_is_refused(file: str, small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    folder = shutil.copytree(small.llm, tmp_path / "x")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    raw = json.loads((folder / file).read_text())
    raw["auto_map"] = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C", "AutoTokenizer": ["evil.C", None]}
    (folder / file).write_text(json.dumps(raw))
    for load in (models.load_language_model, models.load_arm):
        with pytest.raises(CheckpointError, match="asks for code of its own .auto_map., which is never run") as error:
            load(folder)
        assert "\n" not in str(error.value) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["[]", "{", '{"model_type": "llama", "num_attention_heads": 0}', '{"model_type": 3}'])
def test_a_config_of_another_shape_is_one_line(text: str, small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    folder = shutil.copytree(small.llm, tmp_path / "x")
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError) as error:
        models.load_arm(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[]", "{", '{"image_processor": 3}', None])
def test_a_damaged_processor_config_is_one_line(text: str | None, small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    folder = saved(tmp_path / "arm", small, *built(small))
    if text is None:
        (folder / "processor_config.json").unlink()
    else:
        (folder / "processor_config.json").write_text(text)
    with pytest.raises(CheckpointError) as error:
        models.load_arm(folder)
    assert "\n" not in str(error.value) and "processor" in str(error.value)


def test_a_model_of_another_architecture_is_refused(small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    folder = shutil.copytree(small.llm, tmp_path / "x")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"model_type": "gpt2"}))
    with pytest.raises(CheckpointError, match="is a 'gpt2' model, no 'llama'"):
        models.load_language_model(folder)


def test_pad_makes_a_square_with_the_mean_colour(small: SimpleNamespace) -> None:  # noqa: F811
    """LLaVA-1.5's expand2square (llava/mm_utils.py) before the tower's own processor."""
    picture = Image.effect_mandelbrot((60, 30), (-2, -1, 1, 1), 20).convert("RGB")
    square, padded = (models.assemble(small.llm, small.clip, image_aspect_ratio=how)[1] for how in ("square", "pad"))
    mean = tuple(int(part * 255) for part in padded.image_processor.image_mean)
    by_hand = Image.new("RGB", (60, 60), mean)
    by_hand.paste(picture, (0, 15))
    wanted = square.image_processor(images=by_hand, return_tensors="pt")["pixel_values"]
    found = padded.image_processor(images=picture, return_tensors="pt")["pixel_values"]
    assert torch.allclose(found, wanted, atol=1e-6)
    assert not torch.allclose(found, square.image_processor(images=picture, return_tensors="pt")["pixel_values"])
    with pytest.raises(ParameterError, match="known are square, pad"):
        models.assemble(small.llm, small.clip, image_aspect_ratio="anyres")
