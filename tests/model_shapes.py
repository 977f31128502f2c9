"""Models at their true size without their weights: on torch's meta device, which holds shapes and no numbers.

trainable("meta-llama/Llama-2-7b-hf", "lora", vision_tower="openai/clip-vit-large-patch14", also=["embeddings"])
"""

from collections.abc import Iterable

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from sbt.models.freeze import CONNECTOR, LANGUAGE, part_of, set_trainable
from sbt.models.llava import ACTIVATIONS
from sbt.study import costs
from sbt.study.costs import Language, Vision

TUNINGS = {
    "connector": {"connector": "full"},
    "full": {"connector": "full", "language_model": "full"},
    "lora": {"language_model": "lora"},
}


def build(
    language_model: str, vision_tower: str | None = None, *, projector: str = "linear", image_markers: bool = False
) -> LlamaForCausalLM | LlavaForConditionalGeneration:
    """The LLaVA (or, without a tower, the Llama) of two hub ids or folders, on the meta device.

    Its vocabulary has the rows that `assemble` adds: `<image>`, with `image_markers` two more. ParameterError for a
    model whose sizes are not known.
    """
    language = costs.language(language_model)
    text = _llama(language.resized((3 if image_markers else 1) if vision_tower else 0))
    with torch.device("meta"):
        if vision_tower is None:
            return LlamaForCausalLM(text)
        tower = _clip(costs.vision(vision_tower))
        config = LlavaConfig(
            vision_config=tower,
            text_config=text,
            image_token_index=language.vocab,
            projector_hidden_act=ACTIVATIONS[projector],
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=language.tied,
        )
        model = LlavaForConditionalGeneration(config)
    if image_markers:
        model.config.marker_token_ids = [language.vocab + 1, language.vocab + 2]
    return model


def trainable(
    language_model: str,
    tuning: str,
    *,
    vision_tower: str | None = None,
    projector: str = "linear",
    lora: dict | None = None,
    also: Iterable[str] = (),
    image_markers: bool = False,
) -> dict[str, int]:
    """Weights that train, by group, as `set_trainable` frees them: counted on the real modules, on the meta device.

    `tuning` is "connector" (stage 1), "full" or "lora". Groups: language model, LoRA adapters, embeddings, head,
    connector, image_markers.
    """
    model = build(language_model, vision_tower, projector=projector, image_markers=image_markers)
    model = set_trainable(model, TUNINGS[tuning], lora, also=also)
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = _group(name, tuning)
            counts[group] = counts.get(group, 0) + parameter.numel()
    return counts


def _group(name: str, tuning: str) -> str:
    if name.endswith("embed_tokens.markers"):
        return "image_markers"
    if "lora_" in name:
        return "LoRA adapters"
    if part_of(name) == CONNECTOR:
        return CONNECTOR
    if tuning == "full":
        return LANGUAGE
    return "head" if "lm_head" in name else "embeddings"


def _llama(shape: Language) -> LlamaConfig:
    return LlamaConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.attention[0] // shape.heads,
        vocab_size=shape.vocab,
        max_position_embeddings=4096,
        tie_word_embeddings=shape.tied,
    )


def _clip(shape: Vision) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads,
        image_size=shape.image,
        patch_size=shape.patch,
    )
