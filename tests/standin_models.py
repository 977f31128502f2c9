"""Stand-ins of the models that studies name: their repositories' files, tiny, with random weights.

config.json has the real fields and values but for widths, depths and vocabularies (`SMALL`); image and patch sizes of
the towers are the true ones, so an image takes as many tokens as it will. Which tokenizer files and which form of
weights a repository has is as on the Hub: some publish `tokenizer.model` alone, some only pickled weights.
"""

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import released_standins
import torch
from safetensors.torch import save_file
from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, LlamaConfig, LlamaForCausalLM

SMALL = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
SAID = [
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful answers.",
    "Answer the question using a single word or phrase. Please answer yes or no.",
    "USER: ASSISTANT: [INST] [/INST] <<SYS>> What is in the picture? Describe it.",
    "Q: What happens if you eat watermelon seeds? A: The seeds pass through your digestive system. Nothing happens.",
    "a brown dog runs over the grass while two people watch a train at the station",
]
_COMMON = {"hidden_act": "silu", "initializer_range": 0.02, "model_type": "llama", "tie_word_embeddings": False,
           "use_cache": True, "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
LLAMA_2 = {**_COMMON, "max_position_embeddings": 4096, "num_key_value_heads": 4, "pretraining_tp": 1,
           "rms_norm_eps": 1e-05, "rope_scaling": None, "torch_dtype": "float16",
           "transformers_version": "4.31.0.dev0"}  # fmt: skip
LLAMA_1 = {**_COMMON, "max_position_embeddings": 2048, "max_sequence_length": 2048, "pad_token_id": 0,
           "rms_norm_eps": 1e-06, "torch_dtype": "float16", "transformers_version": "4.30.0.dev0"}  # fmt: skip
LLAMA_3 = {**LLAMA_2, "attention_bias": False, "bos_token_id": 0, "eos_token_id": 1, "num_key_value_heads": 2,
           "max_position_embeddings": 8192, "rope_theta": 500000.0, "torch_dtype": "bfloat16",
           "transformers_version": "4.40.0.dev0"}  # fmt: skip
SMOL = {**LLAMA_3, "bos_token_id": 0, "eos_token_id": 0, "is_llama_config": True, "rope_interleaved": False,
        "rope_theta": 100000, "tie_word_embeddings": True, "transformers_version": "4.40.1"}  # fmt: skip
OF_LLAMA = {"add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "clean_up_tokenization_spaces": False,
            "eos_token": "</s>", "legacy": False, "model_max_length": 1000000000000000019884624838656,
            "pad_token": None, "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer",
            "unk_token": "<unk>"}  # fmt: skip
OF_LLAMA_3 = {"bos_token": "<|begin_of_text|>", "clean_up_tokenization_spaces": True, "eos_token": "<|end_of_text|>",
              "model_max_length": 1000000000000000019884624838656,
              "tokenizer_class": "PreTrainedTokenizerFast"}  # fmt: skip
OF_SMOL = {"add_prefix_space": False, "bos_token": "<|endoftext|>", "clean_up_tokenization_spaces": False,
           "eos_token": "<|endoftext|>", "model_max_length": 8192, "tokenizer_class": "GPT2Tokenizer",
           "unk_token": "<|endoftext|>", "vocab_size": 49152}  # fmt: skip
# By repository: config.json, tokenizer_config.json, tokenizer files, weights
BOTH, PIECES, FAST = ("tokenizer.model", "tokenizer.json"), ("tokenizer.model",), ("tokenizer.json",)
LANGUAGE = {
    "HuggingFaceTB/SmolLM2-135M": (SMOL, OF_SMOL, FAST, "model.safetensors"),
    "huggyllama/llama-7b": (LLAMA_1, OF_LLAMA, BOTH, "model-0000{}-of-00002.safetensors"),
    "meta-llama/Llama-2-7b-hf": (LLAMA_2, OF_LLAMA, BOTH, "model-0000{}-of-00002.safetensors"),
    "meta-llama/Llama-2-7b-chat-hf": (LLAMA_2, OF_LLAMA, BOTH, "model-0000{}-of-00002.safetensors"),
    "meta-llama/Meta-Llama-3-8B": (LLAMA_3, OF_LLAMA_3, FAST, "model-0000{}-of-00002.safetensors"),
    "lmsys/vicuna-7b-v1.3": (LLAMA_1, OF_LLAMA, PIECES, "pytorch_model-0000{}-of-00002.bin"),
    "lmsys/vicuna-7b-v1.5": (LLAMA_2, OF_LLAMA, PIECES, "pytorch_model-0000{}-of-00002.bin"),
    "lmsys/vicuna-13b-v1.5": (LLAMA_2, OF_LLAMA, PIECES, "pytorch_model-0000{}-of-00002.bin"),
    "openlm-research/open_llama_3b_v2": (LLAMA_1, OF_LLAMA, PIECES, "pytorch_model.bin"),
    "openllmplayground/openalpaca_3b_600bt_preview": (LLAMA_1, OF_LLAMA, PIECES, "pytorch_model.bin"),
}
LARGE_TOWER = "openai/clip-vit-large-patch14-336"
TOWERS = {  # image size, patch size, weights
    "openai/clip-vit-base-patch32": (224, 32, "pytorch_model.bin"),
    "openai/clip-vit-large-patch14": (224, 14, "model.safetensors"),
    LARGE_TOWER: (336, 14, "pytorch_model.bin"),
}
RELEASED = {  # the authors' checkpoints, `{}` is projector, ft or lora, and the base each was made from
    "PahaII/MM-LLaMA-2-7B-{}": "meta-llama/Llama-2-7b-hf",
    "PahaII/MM-LLaMA-2-7B-chat-{}": "meta-llama/Llama-2-7b-chat-hf",
    "PahaII/MM-LLaMA-3B-{}": "openlm-research/open_llama_3b_v2",
    "PahaII/MM-Alpaca-3B-{}": "openllmplayground/openalpaca_3b_600bt_preview",
    "PahaII/MM-Vicuna-7B-{}": "lmsys/vicuna-7b-v1.3",
    "PahaII/MM-LLaMA-7B-{}": "huggyllama/llama-7b",
}
WRITERS = {"projector": released_standins.write_projector, "ft": released_standins.write_full,
           "lora": released_standins.write_lora}  # fmt: skip


def write(root: Path) -> None:
    """Write all models below `root/OWNER/NAME`."""
    pieces, bytes_3, bytes_smol = _pieces(), _byte_level(OF_LLAMA_3, 420), _byte_level(OF_SMOL, 420)
    for number, (repo, (config, words, files, weights)) in enumerate(LANGUAGE.items()):
        byte_level = bytes_smol if words is OF_SMOL else bytes_3 if words is OF_LLAMA_3 else None
        _language(root / repo, config, words, files, weights, byte_level or pieces, number)
    for repo, (image, patch, weights) in TOWERS.items():
        _tower(root / repo, image, patch, weights)
    for name, base in RELEASED.items():
        models = SimpleNamespace(llm=root / base, clip=root / "openai/clip-vit-large-patch14")
        for kind, writer in WRITERS.items():
            if kind != "lora" or "Vicuna" not in name and "LLaMA-7B" not in name:  # those two have no LoRA
                writer(folder := root / name.format(kind), models)
                _as_published(folder, root / base)
    _llava(root / "liuhaotian/llava-v1.5-13b", root / "lmsys/vicuna-13b-v1.5", root / LARGE_TOWER)


def _llava(at: Path, base: Path, clip: Path) -> None:
    """LLaVA-1.5 as liuhaotian publishes it: shards without CLIP, its projector once more, no tokenizer.json."""
    made = SimpleNamespace(llm=base, clip=clip)
    projector = released_standins.projector(made, "0.", "2.")
    state = released_standins.tuned_state(made, 0) | projector
    half = {key: tensor.half() for key, tensor in state.items()}
    released_standins.write_config(
        at, made, len(state["lm_head.weight"]), model_type="llava", architectures=["LlavaLlamaForCausalLM"],
        _name_or_path="llava-v1.5-13b", image_aspect_ratio="pad", max_length=4096, pad_token_id=0,
        mm_hidden_size=VISION["hidden_size"], mm_projector_type="mlp2x_gelu", mm_resampler_type=None,
        mm_use_im_patch_token=False, mm_use_im_start_end=False, mm_vision_tower=LARGE_TOWER, torch_dtype="float16",
        freeze_mm_vision_resampler=False, tune_mm_vision_resampler=False, unfreeze_mm_vision_tower=False,
        transformers_version="4.31.0")  # fmt: skip
    released_standins.write_shards(at, half, 3)
    torch.save({key: half[key].clone() for key in projector}, at / "mm_projector.bin")
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(base / name, at / name)
    _json(at / "generation_config.json", {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2,
                                          "max_length": 4096, "pad_token_id": 0,
                                          "transformers_version": "4.31.0"})  # fmt: skip


def _language(at: Path, config: dict, words: dict, files: tuple, weights: str, core: object, seed: int) -> None:
    at.mkdir(parents=True)
    _json(at / "tokenizer_config.json", words)
    roles = ("bos_token", "eos_token", "unk_token")
    _json(at / "special_tokens_map.json", {role: words[role] for role in roles if role in words})
    if isinstance(core, Tokenizer):
        core.save(str(at / "tokenizer.json"))
        size = core.get_vocab_size()
    else:
        (at / "tokenizer.model").write_bytes(core)
        made = AutoTokenizer.from_pretrained(at)
        size = len(made)
        if "tokenizer.json" in files:
            made.backend_tokenizer.save(str(at / "tokenizer.json"))
    config = config | SMALL | {"vocab_size": size}
    _json(at / "config.json", config)
    ids = {name: config[name] for name in ("bos_token_id", "eos_token_id")}
    _json(at / "generation_config.json", {"_from_model_config": True, **ids, "transformers_version": "4.31.0.dev0"})
    torch.manual_seed(seed)
    state = LlamaForCausalLM(LlamaConfig.from_dict(config)).to(getattr(torch, config["torch_dtype"])).state_dict()
    if config["tie_word_embeddings"]:
        del state["lm_head.weight"]
    if weights.endswith(".bin"):  # of the time before transformers computed them itself
        state |= {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(6) for n in range(2)}
    _weights(at, weights, state)


def _tower(at: Path, image: int, patch: int, weights: str) -> None:
    at.mkdir(parents=True)
    vision = VISION | {"image_size": image, "patch_size": patch, "num_channels": 3, "hidden_act": "quick_gelu",
                       "layer_norm_eps": 1e-05, "projection_dim": 32, "model_type": "clip_vision_model"}  # fmt: skip
    text = VISION | {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 77,
                     "hidden_act": "quick_gelu", "model_type": "clip_text_model", "projection_dim": 32}  # fmt: skip
    _json(at / "config.json", {
        "architectures": ["CLIPModel"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
        "model_type": "clip", "projection_dim": 32, "text_config": text, "vision_config": vision,
        "torch_dtype": "float32", "transformers_version": None})  # fmt: skip
    _json(at / "preprocessor_config.json", {
        "crop_size": image, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": image})  # fmt: skip
    torch.manual_seed(1)
    state = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)).state_dict()
    buffers = {"vision_model.embeddings.position_ids": torch.arange((image // patch) ** 2 + 1)[None],
               "text_model.embeddings.position_ids": torch.arange(77)[None]}  # fmt: skip
    _weights(at, weights, state | buffers)


def _as_published(folder: Path, base: Path) -> None:
    """The tokenizer of a fully tuned checkpoint as the authors' code saved it: SentencePiece's file, added tokens."""
    if (folder / "tokenizer.json").is_file() and (base / "tokenizer.model").is_file():
        (folder / "tokenizer.json").unlink()
        for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(base / name, folder / name)


def _weights(at: Path, name: str, state: dict[str, torch.Tensor]) -> None:
    """Weights in one file, or in two and an index; safetensors or, by the name, pickled."""
    state = {key: tensor.contiguous() for key, tensor in state.items()}
    keys, pickled = list(state), name.endswith(".bin")
    half = len(keys) // 2
    parts = {name.format(1): keys[:half], name.format(2): keys[half:]} if "{}" in name else {name: keys}
    for file, held in parts.items():
        tensors = {key: state[key] for key in held}
        torch.save(tensors, at / file) if pickled else save_file(tensors, at / file, {"format": "pt"})
    if len(parts) > 1:
        index = "pytorch_model.bin.index.json" if pickled else "model.safetensors.index.json"
        size = sum(x.numel() * x.element_size() for x in state.values())
        places = {key: file for file, held in parts.items() for key in held}
        _json(at / index, {"metadata": {"total_size": size}, "weight_map": places})


def _pieces() -> bytes:
    """A `tokenizer.model` of LLaMA's kind: SentencePiece's BPE with bytes for what no piece covers."""
    model = io.BytesIO()
    SentencePieceTrainer.train(sentence_iterator=iter(SAID * 20), model_writer=model, vocab_size=380,
                               model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
                               remove_extra_whitespaces=False, minloglevel=2)  # fmt: skip
    return model.getvalue()


def _byte_level(words: dict, size: int) -> Tokenizer:
    """GPT-2's kind, as SmolLM2 and LLaMA 3 have it; LLaMA 3's begins a text with its BOS."""
    core, first = Tokenizer(models.BPE()), words["bos_token"]
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    special = [*dict.fromkeys((first, words["eos_token"])), "<|im_start|>", "<|im_end|>", "<file_sep>"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    core.train_from_iterator(SAID, trainer)
    if words is OF_LLAMA_3:
        core.post_processor = processors.TemplateProcessing(f"{first} $A", f"{first} $A {first}:1 $B:1", [(first, 0)])
    return core


def _json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2))
