"""The arms that can see, one after the other; several LoRA arms over the same parts share one loaded model.

for name, arm in load_vision_models({"mm-lora": "outputs/embedded/30_mm-lora/model"}): generate(arm, ...)
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from peft import PeftModel
from transformers import LlavaForConditionalGeneration, ProcessorMixin

from sbt.models.arms import Arm, check_files, describe_arm, load_arm
from sbt.models.llava import assemble, load_connector, locate, read_safetensors
from sbt.models.silence import silence_libraries
from sbt.templates import load as load_template

Parts = tuple[str, str, str, str]
Loaded = tuple[LlavaForConditionalGeneration, ProcessorMixin]


def load_vision_models(references: Mapping[str, str]) -> Iterator[tuple[str, Arm]]:
    """(name, arm in evaluation mode) of every arm, those over one base together, at the place of the first of them.

    Where several share a base, the adapters of each are put on for its turn and taken off again, never merged: use an
    arm before asking for the next. A LoRA arm alone is merged, which is faster. CheckpointError names what is missing
    or damaged.
    """
    groups: dict[Parts | str, list[str]] = {}
    for name, reference in references.items():
        groups.setdefault(_parts(reference) or reference, []).append(name)
    for parts, names in groups.items():
        if isinstance(parts, str) or len(names) == 1:
            for name in names:
                yield name, load_arm(references[name])
            continue
        base = assemble(*parts[:2], projector=parts[2], dtype=parts[3])
        for name in names:
            wrapped = _wrapped(base, Path(locate(references[name])))
            yield name, wrapped
            with silence_libraries():
                wrapped.model.unload()


def _parts(reference: str) -> Parts | None:
    """What a LoRA arm was built from, its connector apart; None for an arm with weights of its own."""
    folder = Path(locate(reference))
    info = describe_arm(folder) if (folder / "arm.json").is_file() else {}
    if info.get("kind") != "llava-lora":
        return None
    models = (locate(info[part], folder) for part in ("language_model", "vision_tower"))
    return (*models, info["projector"], info.get("dtype", "float32"))


def _wrapped(base: Loaded, folder: Path) -> Arm:
    """The arm over the shared model, its adapters not merged: no other arm sees them."""
    (model, processor), info = base, describe_arm(folder)
    check_files(folder, info)
    if info.get("connector"):
        load_connector(model, locate(info["connector"], folder))
    read_safetensors(folder / "adapter_model.safetensors")
    with silence_libraries():
        wrapped = PeftModel.from_pretrained(model, str(folder)).eval()
    if info.get("conversation") is not None:
        processor.chat_template = load_template(info["conversation"])
    return Arm(wrapped, processor, info["kind"], info.get("conversation"), info)
