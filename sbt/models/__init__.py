"""Models of the study: put together from a language model, a vision tower and a connector; frozen, saved, loaded.

model, processor = assemble("assets/llm", "assets/clip");  arm = load_arm("outputs/embedded/30_mm-full")
"""

from sbt.models.arms import (
    Arm,
    arm_parts,
    describe_arm,
    language_model,
    list_arms,
    load_arm,
    save_arm,
    weights_sample,
    weights_sha256,
)
from sbt.models.freeze import freeze_table, set_trainable
from sbt.models.llava import assemble, load_language_model, locate
from sbt.models.silence import silence_libraries
from sbt.models.text_arms import TextArm, TextArms
from sbt.models.vision_arms import load_vision_models

__all__ = [
    "Arm",
    "TextArm",
    "TextArms",
    "arm_parts",
    "assemble",
    "describe_arm",
    "freeze_table",
    "language_model",
    "list_arms",
    "load_arm",
    "load_language_model",
    "load_vision_models",
    "locate",
    "save_arm",
    "set_trainable",
    "silence_libraries",
    "weights_sample",
    "weights_sha256",
]
