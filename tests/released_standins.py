"""Small checkpoints in exactly the layouts of the authors' released ones, of other models with random changes.

Two things differ from the real files: sizes, and the tokenizer of a fully tuned folder, which is a fast one
(`tokenizer.json`). `original` is the authors' forward pass, rebuilt from such files without the converter.
"""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.nn import functional
from transformers import AutoTokenizer, CLIPModel, LlamaForCausalLM

ADDED = ("<im_patch>", "<im_start>", "<im_end>")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK, ALPHA = 4, 16
MULTIMODAL = {"mm_use_im_patch_token": True, "mm_use_im_start_end": True,
              "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2, "use_mm_proj": True,
              "mm_vision_tower": "openai/clip-vit-large-patch14", "image_aspect_ratio": "square",
              "tune_mm_mlp_adapter": False, "freeze_mm_mlp_adapter": False}  # fmt: skip


def base_state(small: SimpleNamespace) -> dict[str, torch.Tensor]:
    """Weights of the base by LLaMA's keys."""
    state = LlamaForCausalLM.from_pretrained(small.llm).state_dict()
    return {key: tensor.clone() for key, tensor in state.items()}


def tuned_state(small: SimpleNamespace, more_rows: int = 3) -> dict[str, torch.Tensor]:
    """Weights after tuning everything: all moved, and rows for the added tokens."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for key, tensor in base_state(small).items():
        if key in ("model.embed_tokens.weight", "lm_head.weight"):
            tensor = torch.cat([tensor, torch.zeros(more_rows, tensor.shape[1])])
        state[key] = tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
    return state


def projector(small: SimpleNamespace, *layers: str) -> dict[str, torch.Tensor]:
    """A projector's tensors, `model.mm_projector.{layer}weight` and bias; one Linear if no layers are named."""
    generator, made = torch.Generator().manual_seed(6), {}
    seen, width = CLIPModel.from_pretrained(small.clip).config.vision_config.hidden_size, len(hidden(small))
    for place, layer in enumerate(layers or ("",)):
        made[f"model.mm_projector.{layer}weight"] = torch.randn(width, width if place else seen, generator=generator)
        made[f"model.mm_projector.{layer}bias"] = torch.randn(width, generator=generator)
    return made


def hidden(small: SimpleNamespace) -> torch.Tensor:
    """The weights of the last norm: as many as the model is wide."""
    return base_state(small)["model.norm.weight"]


def write_config(folder: Path, small: SimpleNamespace, rows: int, **changed: object) -> None:
    """config.json as LLaVA's code writes it: the language model's, with its own keys among them."""
    raw = json.loads((small.llm / "config.json").read_text())
    for key in ("dtype", "rope_parameters", "transformers_version"):
        raw.pop(key, None)
    raw |= MULTIMODAL | {"vocab_size": rows, "torch_dtype": "float32", "transformers_version": "4.28.1"} | changed
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw, indent=2))


def write_shards(folder: Path, state: dict[str, torch.Tensor], count: int = 2) -> None:
    """pytorch_model-0000x-of-0000n.bin and their index."""
    keys = list(state)
    places = {key: f"pytorch_model-{1 + i * count // len(keys):05d}-of-{count:05d}.bin" for i, key in enumerate(keys)}
    for name in sorted(set(places.values())):
        torch.save({key: state[key].clone() for key in keys if places[key] == name}, folder / name)
    index = {"metadata": {"total_size": sum(x.numel() * x.element_size() for x in state.values())}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index | {"weight_map": places}))


def write_projector(folder: Path, small: SimpleNamespace) -> dict[str, torch.Tensor]:
    """(a) stage 1: mm_projector.bin with the whole matrix of embeddings, config.json, trainer_state.json."""
    rows = len(tuned_state(small)["lm_head.weight"])
    write_config(folder, small, rows, model_type="llava", tune_mm_mlp_adapter=True)
    state = projector(small) | {"model.embed_tokens.weight": tuned_state(small)["model.embed_tokens.weight"]}
    torch.save(state, folder / "mm_projector.bin")
    (folder / "trainer_state.json").write_text("{}")
    return state


def write_full(folder: Path, small: SimpleNamespace, model_type: str = "llama") -> dict[str, torch.Tensor]:
    """(b) fully tuned: fp32 shards without CLIP, old rotary buffers in them, tokenizer with the three tokens."""
    state = tuned_state(small)
    rows = len(state["lm_head.weight"])
    write_config(folder, small, rows, model_type=model_type, architectures=["LlamaForCausalLM"])
    buffers = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(8) for n in range(2)}
    write_shards(folder, buffers | state | projector(small))
    words = AutoTokenizer.from_pretrained(small.llm)
    words.add_special_tokens({"additional_special_tokens": list(ADDED)})
    words.save_pretrained(folder)
    (folder / "added_tokens.json").write_text(json.dumps({token: rows - 3 + i for i, token in enumerate(ADDED)}))
    return state | projector(small)


def write_lora(folder: Path, small: SimpleNamespace) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(c) LoRA: no tokenizer; returns the tuned model's tensors, adapters folded in by hand, and the adapters."""
    generator = torch.Generator().manual_seed(7)
    tuned, state, adapters = tuned_state(small), base_state(small), {}
    others = {key: tuned[key] for key in ("model.embed_tokens.weight", "lm_head.weight")} | projector(small)
    write_config(folder, small, len(tuned["lm_head.weight"]), model_type="llava")
    for key, tensor in list(state.items()):
        if key.split(".")[-2] not in TARGETS:
            continue
        a = torch.randn(RANK, tensor.shape[1], generator=generator)
        b = torch.randn(tensor.shape[0], RANK, generator=generator)
        name = "base_model.model." + key.removesuffix(".weight")
        adapters |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        state[key] = tensor + b @ a * ALPHA / RANK
    torch.save(adapters, folder / "adapter_model.bin")
    torch.save({f"base_model.model.{key}": x.clone() for key, x in others.items()}, folder / "non_lora_trainables.bin")
    options = {"base_model_name_or_path": "/home/x/llama", "bias": "none", "fan_in_fan_out": False, "r": RANK,
               "inference_mode": True, "init_lora_weights": True, "layers_pattern": None, "lora_alpha": ALPHA,
               "layers_to_transform": None, "lora_dropout": 0.05, "modules_to_save": None, "peft_type": "LORA",
               "revision": None, "target_modules": list(TARGETS), "task_type": "CAUSAL_LM"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(options))
    return state | others, adapters


def write_llava15(folder: Path, small: SimpleNamespace, *, vision: bool) -> dict[str, torch.Tensor]:
    """(d) LLaVA-1.5: a projector of two layers, no marks, with or without a vision tower of its own."""
    state = tuned_state(small, 0)
    changed = {"mm_use_im_patch_token": False, "mm_use_im_start_end": False, "mm_projector_type": "mlp2x_gelu"}
    write_config(folder, small, len(state["lm_head.weight"]), model_type="llava", **changed)
    extra = {}
    if vision:
        tower = CLIPModel.from_pretrained(small.clip).vision_model.state_dict()
        prefix = "model.vision_tower.vision_tower.vision_model."
        extra = {f"{prefix}{key}": x * 1.1 for key, x in tower.items()}
        extra[f"{prefix}embeddings.position_ids"] = torch.arange(10)[None]
    write_shards(folder, state | projector(small, "0.", "2.") | extra, 3)
    torch.save(projector(small, "0.", "2."), folder / "mm_projector.bin")  # liuhaotian's hold it once more
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(small.llm / name, folder / name)
    return state | projector(small, "0.", "2.") | extra


def original(
    state: dict[str, torch.Tensor], small: SimpleNamespace, pixels: torch.Tensor, before: list[int], after: list[int]
) -> torch.Tensor:
    """Logits of the original forward pass: the projected patches stand between the ids `before` and `after`."""
    clip = CLIPModel.from_pretrained(small.clip).vision_model
    own = {key.partition("vision_model.")[2]: x for key, x in state.items() if "vision_model." in key}
    own.pop("embeddings.position_ids", None)
    if own:
        clip.load_state_dict(own)
    language = {key: x for key, x in state.items() if "mm_projector" not in key and "vision" not in key}
    config = LlamaForCausalLM.config_class.from_pretrained(small.llm, vocab_size=len(language["lm_head.weight"]))
    llama = LlamaForCausalLM(config)
    llama.load_state_dict(language)
    with torch.inference_mode():
        features = clip(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        first = "" if "model.mm_projector.weight" in state else "0."
        weight, bias = (state[f"model.mm_projector.{first}{leaf}"] for leaf in ("weight", "bias"))
        features = functional.linear(features, weight, bias)
        if first:
            weight, bias = (state[f"model.mm_projector.2.{leaf}"] for leaf in ("weight", "bias"))
            features = functional.linear(functional.gelu(features), weight, bias)
        table = language["model.embed_tokens.weight"]
        embeds = torch.cat([table[before], features[0], table[after]])
        return llama.eval()(inputs_embeds=embeds[None]).logits[0]
