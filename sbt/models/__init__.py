"""Models of the study: put together from a language model, a vision tower and a connector; frozen, saved, loaded.

model, processor = assemble("assets/llm", "assets/clip");  arm = load_arm("outputs/embedded/30_mm-full")
"""

from sbt.models.arms import Arm, language_model, load_arm, save_arm, weights_sample, weights_sha256
from sbt.models.freeze import freeze_table, set_trainable
from sbt.models.llava import assemble, load_language_model, locate
from sbt.models.silence import quiet
from sbt.models.text_arms import TextArm, TextArms
from sbt.models.vision_arms import vision_arms

__all__ = [
    "Arm",
    "TextArm",
    "TextArms",
    "assemble",
    "freeze_table",
    "language_model",
    "load_arm",
    "load_language_model",
    "locate",
    "quiet",
    "save_arm",
    "set_trainable",
    "vision_arms",
    "weights_sample",
    "weights_sha256",
]
