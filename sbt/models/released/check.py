"""A converted checkpoint held against its own files: what became of every tensor, and the authors' forward pass.

moved(folder, run.path("model"));  compare(Original(folder, base, clip), load_arm(run.path("model")), pictures, "...")
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from torch.nn import functional
from transformers import AutoConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from sbt import templates
from sbt.data.conversations import PLACEHOLDER, parts
from sbt.models.arms import ARM_FILE, Arm
from sbt.models.image_markers import ADDED, image_text
from sbt.models.llava import load_language_model, locate
from sbt.models.released import keys
from sbt.models.released.hub import is_needed
from sbt.models.silence import silence_libraries
from sbt.utils import paths
from sbt.utils.files import read_json

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_State = dict[str, torch.Tensor]


class Original:
    """A released checkpoint as the authors' code ran it, rebuilt from its own files without the converter.

    The projected features of the CLIP layer before the last stand where `<image>` stood (SBT:llava/model/
    llava_arch.py:104-161), the rows of `<im_start>` and `<im_end>` around them. All in float32; what is not among the
    files comes from `language_model` and `vision_tower`. `adapter_only`: LoRA as the authors scored text.
    """

    def __init__(
        self,
        folder: str | Path,
        language_model: str | Path | None,
        vision_tower: str | Path | None,
        *,
        adapter_only: bool = False,
    ) -> None:
        state, config = _original_state(paths.resolve(str(folder)), language_model, adapter_only=adapter_only)
        self.projector = {k.removeprefix(keys.PROJECTOR): state.pop(k) for k in list(state) if keys.PROJECTOR in k}
        tower = {k.removeprefix(keys.VISION): state.pop(k) for k in list(state) if k.startswith(keys.VISION)}
        config.vocab_size, config.tie_word_embeddings = len(state[EMBED]), False
        with silence_libraries():
            model = LlamaForCausalLM.from_pretrained(None, config=config, state_dict=state, dtype="float32")
            self.language = model.eval()
            if self.projector:
                self.tower = CLIPVisionModel.from_pretrained(locate(vision_tower), dtype="float32").eval()
        if tower:  # LLaVA-1.5 may bring its own
            own = {key.removeprefix("vision_model."): tensor.float() for key, tensor in tower.items()}
            own.pop("embeddings.position_ids", None)
            self.tower.load_state_dict(own)

    def logits(self, ids: Sequence[int], pixels: torch.Tensor | None = None, image: int | None = None) -> torch.Tensor:
        """Logits at every position, (tokens, rows); the picture's features stand in place of the ids `image`."""
        table = self.language.get_input_embeddings().weight
        found = torch.tensor(ids)
        with torch.inference_mode():
            embeds = table[found.clamp(max=len(table) - 1)]
            if pixels is not None:
                places = (found == image).nonzero()[:, 0]
                first, last = int(places[0]), int(places[-1])
                embeds = torch.cat([embeds[:first], self._features(pixels), embeds[last + 1 :]])
            return self.language(inputs_embeds=embeds[None]).logits[0]

    def answer(self, ids: Sequence[int], new: int, end: int, **picture: object) -> list[int]:
        """The ids of greedy decoding, up to `end` or `new` of them; everything is computed anew for each."""
        told: list[int] = []
        while len(told) < new:
            best = int(self.logits([*ids, *told], **picture)[-1].argmax())
            if best == end:
                break
            told.append(best)
        return told

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        found = self.tower(pixels.float(), output_hidden_states=True).hidden_states[-2][0, 1:]
        layers = ["0.", "2."] if "0.weight" in self.projector else [""]
        for place, layer in enumerate(layers):
            found = functional.gelu(found) if place else found
            weight, bias = (self.projector[f"{layer}{leaf}"].float() for leaf in ("weight", "bias"))
            found = functional.linear(found, weight, bias)
        return found


def image_prompt(arm: Arm, question: str) -> str:
    """What the arm reads for a question about one image, in its own conversation template, markers included."""
    text = f"{arm.tokenizer.bos_token}{PLACEHOLDER}\n{question}"
    if arm.conversation:
        told = [{"role": "user", "content": parts(f"{PLACEHOLDER}\n{question}")}]
        form = {"chat_template": templates.load(arm.conversation), "tokenize": False, "add_generation_prompt": True}
        text = arm.tokenizer.apply_chat_template(told, **form)
    return text.replace(PLACEHOLDER, image_text(arm.tokenizer, arm.model.config.image_seq_length))


def compare(
    original: Original, arm: Arm, pictures: Sequence[Image.Image], question: str, *, new: int = 16
) -> list[dict]:
    """One row a picture (one in all for an arm without vision): does the arm compute what the authors' code did?

    `tokens` of the prompt, `largest` logit, largest `difference` of logits, share of positions with the `same_next`
    token, and the `answer` of the original: greedy, up to `new` tokens or the template's end sign.
    """
    rows, stop = [], templates.stop_string(arm.conversation) if arm.conversation and arm.has_vision else None
    for picture in pictures if arm.has_vision else [None]:
        seen = {}
        text = image_prompt(arm, question) if arm.has_vision else (arm.tokenizer.bos_token or "") + question
        ids = arm.tokenizer.encode(text, add_special_tokens=False)
        inputs = {"input_ids": torch.tensor([ids])}
        if picture is not None:
            with silence_libraries():
                pixels = arm.processor.image_processor(images=picture, return_tensors="pt")["pixel_values"]
            inputs["pixel_values"], seen = (
                pixels.to(arm.model.dtype),
                {"pixels": pixels, "image": arm.processor.image_token_id},
            )
        with torch.inference_mode():
            found = arm.model(**inputs).logits[0].float()
        wanted = original.logits(ids, **seen)
        found, wanted = found[:, : wanted.shape[1]], wanted[:, : found.shape[1]]
        told = arm.tokenizer.decode(
            original.answer(ids, new, arm.tokenizer.eos_token_id, **seen), skip_special_tokens=True
        )
        rows.append(
            {
                "tokens": len(ids),
                "largest": float(wanted.abs().max()),
                "difference": float((found - wanted).abs().max()),
                "same_next": float((found.argmax(-1) == wanted.argmax(-1)).float().mean()),
                "answer": (told.split(stop)[0] if stop else told).strip(),
            }
        )
    return rows


def contents(folder: Path) -> list[dict]:
    """One row a file that conversion reads: file, MB, tensors, dtype; the tensors of .bin files only are counted."""
    rows = []
    for file in sorted(file for file in folder.iterdir() if is_needed(file.name)):
        row = {"file": file.name, "MB": round(file.stat().st_size / 1e6, 2), "tensors": "", "dtype": ""}
        if file.suffix == ".bin":
            found = keys.read_bin(file).tensors.values()
            types = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in found})
            row |= {"tensors": len(found), "dtype": ", ".join(types)}
        rows.append(row)
    return rows


def moved(folder: Path, arm: Path) -> list[dict]:
    """Where the tensors of the checkpoint in `folder` are in the converted `arm`: key, tensors, shape, became.

    They are found by their contents, in the arm's number format, not by their names. Layers are one row. `became` is
    "folded in" for adapters that are part of other weights now, and "left out" for what `arm.json` lists as ignored.
    """
    info = read_json(arm / ARM_FILE)
    dtype, placed = getattr(torch, info["dtype"]), _by_contents(arm)
    ignored = set(info["released"]["ignored"])
    groups: dict[tuple, dict] = {}
    for file in sorted(folder.glob("*.bin")):
        if not is_needed(file.name):
            continue
        for key, tensor in keys.read_bin(file).tensors.items():
            became = "left out" if {key, file.name} & ignored else _place(key, tensor, dtype, placed)
            row = {"key": _layers(key), "shape": " x ".join(map(str, tensor.shape)), "became": _layers(became)}
            groups.setdefault(tuple(row.values()), row | {"tensors": 0})["tensors"] += 1
    return [{name: row[name] for name in ("key", "tensors", "shape", "became")} for row in groups.values()]


def _by_contents(arm: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in sorted(arm.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118 - no mapping
                found.setdefault(_contents(weights.get_tensor(key)), []).append(key)
    return found


def _place(key: str, tensor: torch.Tensor, dtype: torch.dtype, placed: dict[str, list[str]]) -> str:
    """Name of the tensor with these contents; of several that whose name ends most like the key."""
    if there := placed.get(_contents(tensor.to(dtype))) or placed.get(_contents(tensor)):
        return max(there, key=lambda name: len(os.path.commonprefix([name[::-1], key[::-1]])))
    if "lora_" in key:
        return "folded in"
    rows = [placed.get(_contents(row.float()), [""])[0] for row in tensor[-2:]] if tensor.ndim == 2 else []
    return f"its last rows: {', '.join(rows)}" if all(rows) and rows else "not found"


def _contents(tensor: torch.Tensor) -> str:
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + memoryview(flat.numpy())).hexdigest()


def _layers(key: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", key)


def _original_state(folder: Path, base: str | Path | None, *, adapter_only: bool) -> tuple[_State, LlamaConfig]:
    what = keys.kind(folder)
    if what in ("full", "llava-1.5"):
        state = keys.read_shards(folder).tensors
        return {k: x for k, x in state.items() if not k.endswith("inv_freq")}, keys.llama_config(folder)[0]
    config = AutoConfig.from_pretrained(locate(base))
    state = dict(load_language_model(base)[0].state_dict())
    if what == "projector":
        own = keys.read_bin(folder / keys.PROJECTOR_FILE).tensors
        markers = own.pop(EMBED, None)
        if markers is not None:  # only the last two rows are read back; the head's are the mean of the others
            mean = {key: state[key].mean(dim=0, keepdim=True) for key in (EMBED, HEAD)}
            state[EMBED] = torch.cat([state[EMBED], mean[EMBED], markers[-2:].float()])
            state[HEAD] = torch.cat([state[HEAD], mean[HEAD].expand(len(ADDED), -1)])
        return state | own, config
    adapters = keys.read_bin(folder / keys.ADAPTER_FILE).tensors
    options = keys.read_object(folder / keys.ADAPTER_CONFIG)
    for name in [key.removesuffix("lora_A.weight") for key in adapters if key.endswith("lora_A.weight")]:
        low, high = (adapters[f"{name}lora_{side}.weight"].float() for side in "AB")
        key = f"{name.removeprefix(keys.LORA_PREFIX)}weight"
        state[key] = state[key] + high @ low * options["lora_alpha"] / options["r"]
    if adapter_only:
        return state, config
    others = keys.read_bin(folder / keys.OTHERS_FILE).tensors
    return state | {key.removeprefix(keys.LORA_PREFIX): tensor for key, tensor in others.items()}, config
