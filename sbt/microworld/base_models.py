"""Pretrain the small base models of the embedded study from nothing: a tokenizer, a Llama and a CLIP pair.

They are to this study what LLaMA and CLIP are to the paper's. `05_base_models` runs these functions; what it makes is
kept in `sbt/microworld/assets/` and loaded like any other checkpoint.
"""

from sbt.microworld.corpora import Captioned, Documents, near_twins
from sbt.microworld.pretrain import pretrain_clip, pretrain_language_model
from sbt.microworld.recipe import Recipe, keep, machine, train_tokenizer, with_charts

__all__ = [
    "Captioned",
    "Documents",
    "Recipe",
    "keep",
    "machine",
    "near_twins",
    "pretrain_clip",
    "pretrain_language_model",
    "train_tokenizer",
    "with_charts",
]
