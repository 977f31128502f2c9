"""The language models inside a study's arms, one after the other, for text benchmarks.

for arm in TextArms({"base": "assets/llm", "mm-lora": "outputs/embedded/30_mm-lora/model"}):
    loglikelihoods(arm.model, arm.tokenizer, requests, cache=...)
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from sbt.models.arms import ARM_FILE, check_files, describe_arm, language_model, load_arm
from sbt.models.image_markers import MARKERS_FILE
from sbt.models.llava import locate
from sbt.models.lora import put_adapters, sharing
from sbt.models.tokenizer import IMAGE_TOKEN, MARKERS, add_tokens
from sbt.templates import load as load_template
from sbt.utils import env
from sbt.utils.errors import ParameterError
from sbt.utils.text import nearest

LORA_MODES = ("switched", "merged", "adapter")
_ADAPTED = ("lm-lora", "llava-lora")
_Language = tuple[LlamaForCausalLM, PreTrainedTokenizerBase]


@dataclass(frozen=True)
class TextArm:
    """A language model ready to score."""

    name: str
    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class _Source:
    ref: str
    info: dict  # empty where there is no arm.json
    dtype: str

    @property
    def base(self) -> str | None:
        """The language model an adapter or a connector was trained on."""
        over = self.info.get("kind") in (*_ADAPTED, "connector") and self.info.get("language_model")
        return locate(self.info["language_model"], Path(self.ref)) if over else None


class TextArms:
    """Language models of arms (name -> folder, `assets/...` or hub id), one full model in memory at a time.

    `lora` says how LoRA arms are taken:
    - "switched": what the arm computes, its adapters and other trained tensors over the base, which stays loaded and
      untouched for the base itself and for other arms over it.
    - "merged": the same folded into a full model of its own.
    - "adapter": only the low-rank adapters over the base with the base's own vocabulary, as the paper's authors scored
      theirs (SBT:eval_scripts/eval_nlp.sh:24-32). Embeddings and whatever else was trained in full are left out.
    Each arm has its own vocabulary: a LLaVA's has a row more than its base's where `<image>` was added.

    Iteration yields the arms over one base together, at the place of the first of them (`order`), so no model is read
    twice; `loads` lists the full models read. Loading an arm over another base frees the previous model's memory, even
    while a variable still names it.
    """

    def __init__(
        self,
        references: Mapping[str, str | Path],
        *,
        dtype: str | None = None,
        lora: str = "switched",
        device: str | None = None,
    ) -> None:
        if lora not in LORA_MODES:
            raise ParameterError(f"lora={lora!r} is unknown{nearest(lora, LORA_MODES)}")
        self.lora, self.device, self.loads = lora, device or env.device().value, []
        self._sources = {name: _source(ref, dtype) for name, ref in references.items()}
        groups: dict[tuple[str, str], list[str]] = {}
        for name, source in self._sources.items():
            groups.setdefault(self._weights(source), []).append(name)
        self.order = tuple(name for group in groups.values() for name in group)
        self._held: tuple[str, str] | None = None
        self._models: dict[tuple, _Language] = {}  # (): as read; else by the tokens added, over the same memory
        self._made: dict[str, TextArm] = {}

    def __iter__(self) -> Iterator[TextArm]:
        for name in self.order:
            yield self.load(name)

    def load(self, name: str) -> TextArm:
        """One arm. Another base or full model is freed first, and read again when it is asked for again.

        ParameterError for an unknown name. CheckpointError names the file, and the tensor or option, that is missing,
        damaged or does not fit.
        """
        if name not in self._sources:
            raise ParameterError(f"arm {name!r} is unknown{nearest(name, self._sources)}")
        source = self._sources[name]
        with torch.random.fork_rng(devices=[]):  # layers are initialised before their weights are read
            if self._weights(source) != self._held:
                self._release()
                self._read(source)
            if name not in self._made:
                self._made[name] = self._make(name, source)
        return self._made[name]

    def _is_adapted(self, source: _Source) -> bool:
        return self.lora != "merged" and source.info.get("kind") in _ADAPTED and source.base is not None

    def _weights(self, source: _Source) -> tuple[str, str]:
        """The full model that an arm needs in memory, and its dtype."""
        return source.base if self._is_adapted(source) else source.ref, source.dtype

    def _read(self, source: _Source) -> None:
        ref, dtype = self._weights(source)
        model, tokenizer = language_model(load_arm(ref, dtype=dtype))
        self.loads.append(ref if self._is_adapted(source) else source.base or ref)
        self._models[()] = model.requires_grad_(False).to(self.device), tokenizer
        self._held = ref, dtype

    def _release(self) -> None:
        for model in (*(model for model, _ in self._models.values()), *(arm.model for arm in self._made.values())):
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.data = tensor.data.new_empty(0)  # frees it even while the caller's variable names the model
        self._models, self._made, self._held = {}, {}, None

    def _make(self, name: str, source: _Source) -> TextArm:
        model, tokenizer = self._adapt(source) if self._is_adapted(source) else self._models[()]
        tokenizer = copy.deepcopy(tokenizer)  # others over the same base have another template
        if source.info.get("conversation") is not None:  # a LLaVA arm keeps it on the processor only
            tokenizer.chat_template = load_template(source.info["conversation"])
        return TextArm(name, model, tokenizer)

    def _adapt(self, source: _Source) -> _Language:
        folder, image = Path(source.ref), source.info["kind"] == "llava-lora"
        check_files(folder, source.info)
        markers = MARKERS if (folder / MARKERS_FILE).is_file() else ()
        over = (IMAGE_TOKEN, *markers) if image and self.lora != "adapter" else ()
        if over not in self._models:
            self._models[over] = _with_tokens(*self._models[()], over)
        base, tokenizer = self._models[over]
        return put_adapters(folder, sharing(base), image=image, low_rank_only=self.lora == "adapter"), tokenizer


def _source(ref: str | Path, dtype: str | None) -> _Source:
    name = locate(ref)
    info = describe_arm(Path(name)) if (Path(name) / ARM_FILE).is_file() else {}
    return _Source(name, info, dtype or info.get("dtype", "float32"))


def _with_tokens(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, tokens: tuple[str, ...]) -> _Language:
    """The base with rows for added tokens. The larger matrices hold the base's, which become their first rows."""
    rows = [(layer.weight, len(layer.weight)) for layer in (base.get_input_embeddings(), base.get_output_embeddings())]
    # resizing replaces the data of a parameter in place: were it the base's own, the base would grow too
    model, words = sharing(base, apart=tuple(weight for weight, _ in rows)), copy.deepcopy(tokenizer)
    add_tokens(model, words, *tokens)
    grown = (model.get_input_embeddings(), model.get_output_embeddings())
    for (weight, count), layer in zip(rows, grown, strict=True):
        weight.data = layer.weight.data[:count]
    return model.requires_grad_(False), words
