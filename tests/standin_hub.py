"""A hub cache of stand-ins: the repositories, revisions and file names of the real models and training sets, tiny.

Models have random weights. Their config.json has the real fields and values but for widths, depths and vocabularies
(`SMALL`); image and patch sizes of the towers are the true ones, so an image takes as many tokens as it will. Two
things are not as on the Hub: repositories that publish a SentencePiece `tokenizer.model` have a tokenizer.json of the
same kind instead, which needs no package sentencepiece, and LLaMA-2's weights are one file. Pictures are the
micro-world's.
"""

import hashlib
import io
import json
import random
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPConfig, CLIPModel, LlamaConfig, LlamaForCausalLM

from sbt.data.registry import SOURCES
from sbt.microworld import scenes

SMALL = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
SYSTEM = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful answers."
TASK = "Answer the question using a single word or phrase."  # what LLaVA-1.5's mix ends many questions with
IMAGES, ROWS = 24, 48
SPECIAL = ["<unk>", "<s>", "</s>"]
LICENCE = {"_name_or_path": "", "hidden_act": "silu", "initializer_range": 0.02, "model_type": "llama",
           "pretraining_tp": 1, "rope_scaling": None, "tie_word_embeddings": False, "use_cache": True}  # fmt: skip
LLAMA = {"architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, **LICENCE,
         "num_key_value_heads": 4, "rms_norm_eps": 1e-05, "max_position_embeddings": 4096,
         "torch_dtype": "float16", "transformers_version": "4.31.0.dev0"}  # fmt: skip
OPEN = {"architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "hidden_act": "silu", "initializer_range": 0.02, "max_position_embeddings": 2048, "model_type": "llama",
        "rms_norm_eps": 1e-06, "tie_word_embeddings": False, "torch_dtype": "float16", "use_cache": True,
        "transformers_version": "4.30.0.dev0"}  # fmt: skip
SMOL = {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, **LICENCE,
        "bos_token_id": 0, "eos_token_id": 0, "is_llama_config": True, "max_position_embeddings": 8192,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_theta": 100000,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.40.1"}  # fmt: skip
OF_LLAMA = {"add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "clean_up_tokenization_spaces": False,
            "eos_token": "</s>", "legacy": False, "model_max_length": 1000000000000000019884624838656,
            "pad_token": None, "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer",
            "unk_token": "<unk>"}  # fmt: skip
OF_SMOL = {"add_prefix_space": False, "bos_token": "<|endoftext|>", "clean_up_tokenization_spaces": False,
           "eos_token": "<|endoftext|>", "model_max_length": 8192, "tokenizer_class": "GPT2Tokenizer",
           "unk_token": "<|endoftext|>", "vocab_size": 49152}  # fmt: skip
# LLaMA's SentencePiece model and GPT-2's byte-level one, as tokenizer.json; weights in the files that hold the real
MODELS = {
    "HuggingFaceTB/SmolLM2-135M": (SMOL, OF_SMOL, "model.safetensors", torch.bfloat16),
    "meta-llama/Llama-2-7b-hf": (LLAMA, OF_LLAMA, "model.safetensors", torch.float16),
    "openlm-research/open_llama_3b_v2": (OPEN, OF_LLAMA, "pytorch_model.bin", torch.float16),
    "lmsys/vicuna-7b-v1.5": (LLAMA, OF_LLAMA, "pytorch_model.bin", torch.float16),
}
TOWERS = {
    "openai/clip-vit-base-patch32": (224, 32, "pytorch_model.bin"),
    "openai/clip-vit-large-patch14": (224, 14, "model.safetensors"),
    "openai/clip-vit-large-patch14-336": (336, 14, "pytorch_model.bin"),
}


def write(home: Path) -> Path:
    """Write the cache for `HF_HOME=home` and, in `home/files`, what the registry takes from elsewhere or pins by hash.

    Those: train2017.zip, llava_v1_5_mix665k.json and SlimOrca's jsonl, to be named as files; heldout.json and its
    pictures in heldout/. Returns that folder.
    """
    own = home / "files"
    own.mkdir(parents=True)
    for repo, (config, words, weights, dtype) in MODELS.items():
        _language(_Repository(home, repo), config, words, weights, dtype)
    for repo, (image, patch, weights) in TOWERS.items():
        _tower(_Repository(home, repo), image, patch, weights)
    _training_sets(home, own)
    return own


class _Repository:
    """One repository in the cache: blobs, a snapshot of links to them, and refs/main where no revision is pinned."""

    def __init__(self, home: Path, repo: str, kind: str = "models", revision: str | None = None) -> None:
        self.folder = home / "hub" / f"{kind}--{repo.replace('/', '--')}"
        self.commit = revision or hashlib.sha1(repo.encode()).hexdigest()
        if revision is None:
            (self.folder / "refs").mkdir(parents=True, exist_ok=True)
            (self.folder / "refs" / "main").write_text(self.commit)

    def add(self, name: str, content: bytes) -> None:
        """A file of the repository."""
        blob, link = self.folder / "blobs" / hashlib.sha256(content).hexdigest(), self.folder / "snapshots"
        link = link / self.commit / name
        for file in (blob, link):
            file.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(Path(*[".."] * (1 + len(Path(name).parts)), "blobs", blob.name))

    def json(self, name: str, value: object) -> None:
        """A JSON file of the repository."""
        self.add(name, json.dumps(value, indent=2).encode())

    def weights(self, name: str, state: dict[str, torch.Tensor]) -> None:
        """Weights as safetensors or, by its name, as a pickled .bin file."""
        state, file = {key: x.contiguous() for key, x in state.items()}, self.folder / "weights.tmp"
        if name.endswith(".bin"):
            torch.save(state, file)
        else:
            save_file(state, file, {"format": "pt"})
        self.add(name, file.read_bytes())
        file.unlink()


def _language(at: _Repository, config: dict, words: dict, weights: str, dtype: torch.dtype) -> None:
    core = _byte_level() if words is OF_SMOL else _sentencepiece()
    core.save(str(file := at.folder / "tokenizer.tmp"))
    at.add("tokenizer.json", file.read_bytes())
    file.unlink()
    at.json("tokenizer_config.json", words)
    at.json("special_tokens_map.json", {name: words[name] for name in ("bos_token", "eos_token", "unk_token")})
    shape = SMALL | {"vocab_size": core.get_vocab_size()}
    at.json("config.json", config | shape)
    ids = {name: config[name] for name in ("bos_token_id", "eos_token_id")}
    at.json("generation_config.json", {"_from_model_config": True, **ids, "transformers_version": "4.31.0.dev0"})
    torch.manual_seed(0)
    state = LlamaForCausalLM(LlamaConfig.from_dict(config | shape)).to(dtype).state_dict()
    if config["tie_word_embeddings"]:
        del state["lm_head.weight"]
    if weights.endswith(".bin"):  # of the time before transformers computed them itself
        state |= {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(6) for n in range(2)}
    at.weights(weights, state)


def _tower(at: _Repository, image: int, patch: int, weights: str) -> None:
    vision = VISION | {"image_size": image, "patch_size": patch, "num_channels": 3, "hidden_act": "quick_gelu",
                       "layer_norm_eps": 1e-05, "projection_dim": 32, "model_type": "clip_vision_model"}  # fmt: skip
    text = VISION | {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 77,
                     "hidden_act": "quick_gelu", "model_type": "clip_text_model", "projection_dim": 32}  # fmt: skip
    config = {"architectures": ["CLIPModel"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
              "model_type": "clip", "projection_dim": 32, "text_config": text, "vision_config": vision,
              "torch_dtype": "float32", "transformers_version": None}  # fmt: skip
    at.json("config.json", config)
    at.json("preprocessor_config.json", {
        "crop_size": image, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": image})  # fmt: skip
    torch.manual_seed(1)
    state = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)).state_dict()
    buffers = {"vision_model.embeddings.position_ids": torch.arange((image // patch) ** 2 + 1)[None],
               "text_model.embeddings.position_ids": torch.arange(77)[None]}  # fmt: skip
    at.weights(weights, state | buffers)


def _byte_level() -> Tokenizer:
    """SmolLM2's kind: GPT-2's bytes, one token that begins, ends and is unknown, and further special ones."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    core.train_from_iterator(_said(), trainer)
    return core


def _sentencepiece() -> Tokenizer:
    """LLaMA's kind: pieces that begin with ▁ for a space, bytes for what they do not cover, <s> before a text."""
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(
        _said(), trainers.BpeTrainer(vocab_size=260, special_tokens=SPECIAL, show_progress=False)
    )
    learnt = json.loads(learner.to_str())["model"]
    before = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    names = before + [piece for piece in learnt["vocab"] if piece not in before]
    merges = [tuple(pair) for pair in learnt["merges"]]
    core = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, merges, unk_token="<unk>", fuse_unk=True,
                                byte_fallback=True))  # fmt: skip
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens(SPECIAL)
    core.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s>:1 $B:1", [("<s>", 1)])
    return core


def _said() -> list[str]:
    texts = [SYSTEM, TASK, "USER: ASSISTANT: [INST] [/INST] <<SYS>> What is in the picture? Describe it."]
    return texts + [f"a {colour} {shape} at the top left" for colour, shape in scenes.PAIRS]


def _training_sets(home: Path, own: Path) -> None:
    rng = random.Random(0)
    found = [scenes.sample(rng) for _ in range(IMAGES)]
    jpegs = [_jpeg(scene) for scene in found]
    coco = [f"{33471 + 98 * k:012}.jpg" for k in range(IMAGES)]
    _zip(own / "train2017.zip", {f"train2017/{name}": data for name, data in zip(coco, jpegs, strict=True)})
    _pretraining(home, "cc3m-595k", [f"GCC_train_{2109690 + k:09}.jpg" for k in range(IMAGES)], found, jpegs)
    blip = [f"{453 + k // 9:05}/{4539375 + k:09}.jpg" for k in range(IMAGES)]
    _pretraining(home, "llava-1.5-558k", blip, found, jpegs)
    visual = [_instruction(k, coco[k % IMAGES], found[k % IMAGES], coco[k % IMAGES][:-4]) for k in range(ROWS)]
    visual.append(_instruction(0, "000000999999.jpg", found[0], "000000999999"))  # its picture is not in the archive
    _published(home, "llava-instruct-80k", {"llava_instruct_80k.json": visual})
    mix = [row | {"image": f"coco/train2017/{row['image']}"} for row in visual[:ROWS]]
    mix += [{"id": f"wgByO4Y_{k}", "model": "", "conversations": _turns("Name a shape.", "A star.")} for k in range(6)]
    (own / "llava_v1_5_mix665k.json").write_text(json.dumps(mix))
    (own / "heldout").mkdir()
    for name, data in zip(coco[:6], jpegs, strict=False):
        (own / "heldout" / name).write_bytes(data)
    (own / "heldout.json").write_text(json.dumps(visual[:6]))
    asked = [(f"Name the colour of a {shape}.", f"It may be {colour}.") for colour, shape in scenes.PAIRS[:ROWS]]
    alpaca = [{"instruction": ask, "input": "", "output": answer} for ask, answer in asked]
    _published(home, "alpaca-52k", {"alpaca_data.json": alpaca})
    orca = [[{"from": "system", "value": "You are an AI assistant.", "weight": None},
             {"from": "human", "value": ask, "weight": 0.0},
             {"from": "gpt", "value": answer, "weight": 1.0}] for ask, answer in asked]  # fmt: skip
    lines = "".join(json.dumps({"conversations": turns}) + "\n" for turns in orca)
    (own / "oo-labeled_correct.gpt4.sharegpt.jsonl").write_text(lines)


def _pretraining(home: Path, name: str, members: list[str], found: list[scenes.Scene], jpegs: list[bytes]) -> None:
    rows = [{"id": Path(member).stem, "image": member,
             "conversations": _turns("Give a brief description of the image.\n<image>", _caption(scene))}
            for member, scene in zip(members, found, strict=True)]  # fmt: skip
    _zip(packed := home / "images.tmp", dict(zip(members, jpegs, strict=True)))
    rows_file = next(file.name for file in SOURCES[name].files if file.rows)
    _published(home, name, {rows_file: rows, "images.zip": packed.read_bytes()})
    packed.unlink()


def _published(home: Path, name: str, content: dict[str, object]) -> None:
    """Files of a source where the Hub's cache has them: its first place's repository and revision."""
    for file in SOURCES[name].files:
        at = _Repository(home, file.mirrors[0].repo, "datasets", file.mirrors[0].revision)
        value = content[file.name]
        at.add(file.mirrors[0].path, value if isinstance(value, bytes) else json.dumps(value).encode())


def _instruction(number: int, image: str, scene: scenes.Scene, name: str) -> dict:
    thing = scene.things[0]
    turns = _turns(f"<image>\nWhat colour is the {thing.shape}?\n{TASK}", f"{thing.colour}")
    more = _turns("Where is it?", f"It is at the {thing.position}.") if number % 2 else []
    return {"id": name, "image": image, "conversations": turns + more}


def _turns(asked: str, answer: str) -> list[dict]:
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]


def _caption(scene: scenes.Scene) -> str:
    return "a picture of " + " and ".join(f"a {thing.size} {thing.name}" for thing in scene.things)


def _jpeg(scene: scenes.Scene) -> bytes:
    held = io.BytesIO()
    scenes.render(scene, 96).save(held, "JPEG")
    return held.getvalue()


def _zip(file: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
