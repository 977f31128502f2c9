"""Put a LLaVA together from separate checkpoints: language model, vision tower, connector.

The paper's connector is one Linear. It is `LlavaForConditionalGeneration` with a linear activation between its two
layers and the second one fixed to the identity, so every tool that knows LLaVA reads the result.
"""

import os
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    BaseImageProcessor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionModel,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sbt.models.quantize import four_bit, quantized
from sbt.models.silence import silence_libraries
from sbt.models.tokenizer import IMAGE_TOKEN, MARKERS, add_tokens, agree, load_tokenizer, refuse_code
from sbt.utils import hub, paths
from sbt.utils.errors import CheckpointError, DataError, ParameterError, first_line
from sbt.utils.files import read_json

CONNECTOR_FILE = "connector.safetensors"
ACTIVATIONS = {"linear": "linear", "mlp2x_gelu": "gelu"}
ASPECT_RATIOS = ("square", "pad")


def assemble(
    language_model: str | Path,
    vision_tower: str | Path,
    connector: str | Path | None = None,
    *,
    projector: str = "linear",
    dtype: str = "float32",
    seed: int = 0,
    image_markers: bool = False,
    quantization: str = "",
    image_aspect_ratio: str = "square",
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA of the named checkpoints (folder, `assets/...` or hub id) and its processor, in evaluation mode.

    The connector is initialised from `seed` unless `connector` names a file or folder made by stage 1. `projector` is
    "linear" (the paper's) or "mlp2x_gelu" (LLaVA-1.5). A tokenizer without `<image>` gets it, the new rows being the
    mean of the others; with `image_markers` also `<im_start>` and `<im_end>`, which then stand around every image.
    With `quantization` "4bit" the linear layers of the language model are kept in 4 bits. `image_aspect_ratio` "pad"
    (LLaVA-1.5) pads a picture to a square with the mean colour; "square" leaves it to the tower's processor, which
    cuts the middle out. CheckpointError names what is missing or damaged; ParameterError a wrong option.
    """
    if projector not in ACTIVATIONS:
        raise ParameterError(f"projector {projector!r} is unknown; known: {', '.join(ACTIVATIONS)}")
    if image_aspect_ratio not in ASPECT_RATIOS:
        raise ParameterError(f"image_aspect_ratio={image_aspect_ratio!r}: known are {', '.join(ASPECT_RATIOS)}")
    language, tokenizer = load_language_model(language_model, dtype=dtype, quantization=quantization)
    add_tokens(language, tokenizer, IMAGE_TOKEN, *(MARKERS if image_markers else ()))
    vision, image_processor = _load_vision(vision_tower, dtype=dtype, pad=image_aspect_ratio == "pad")
    model = _joined(language, vision, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), ACTIVATIONS[projector])
    _make_projector(model, projector, seed, language.dtype)
    if connector is not None:
        load_connector(model, connector)
    model.generation_config = language.generation_config
    model.config.dtype = language.dtype
    if image_markers:
        model.config.marker_token_ids = tokenizer.convert_tokens_to_ids(list(MARKERS))
    if quantization:
        quantized(model, language)
    processor = LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=vision.config.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the CLS token, which "default" drops again
    )
    return model.eval(), processor


def _joined(
    language: LlamaForCausalLM, vision: CLIPVisionModel, image_token: int, activation: str
) -> LlavaForConditionalGeneration:
    """A LLaVA of the two, its connector still without weights."""
    config = LlavaConfig(
        vision_config=vision.config,
        text_config=language.config,
        image_token_index=image_token,
        image_seq_length=(vision.config.image_size // vision.config.patch_size) ** 2,
        projector_hidden_act=activation,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    with torch.device("meta"):  # no memory and no time for weights that are replaced right away
        model = LlavaForConditionalGeneration(config)
    model.model.vision_tower, model.model.language_model, model.lm_head = vision, language.model, language.lm_head
    return model


def load_language_model(
    ref: str | Path, *, dtype: str = "float32", quantization: str = ""
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """A Llama and its tokenizer, mended as `tokens.load_tokenizer` says. `quantization` as in `assemble`."""
    name = locate(ref)
    options = four_bit(quantization, dtype)
    model = load_pretrained(LlamaForCausalLM, name, dtype=dtype, **options)
    tokenizer, _ = load_tokenizer(name)
    agree(model, tokenizer)
    return model, tokenizer


def load_pretrained(kind: type[PreTrainedModel], name: str, *, dtype: str, **options: object) -> PreTrainedModel:
    """`kind.from_pretrained`, quiet; safetensors, or .bin files (tensors alone are read) where there are no others.

    Vicuna's and OpenLLaMA's repositories have no others. CheckpointError where weights are damaged or missing.
    """
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"  # transformers would ask a service of the hub for it, unasked
    options = {"dtype": dtype, "weights_only": True, "trust_remote_code": False} | options
    found = read_config(name).model_type
    if found != kind.config_class.model_type:
        raise CheckpointError(f"{name}: is a {found!r} model, no {kind.config_class.model_type!r}")
    with silence_libraries():
        try:
            repo, at = hub.given(name)
            model, report = kind.from_pretrained(repo, output_loading_info=True, **at, **options)
        except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
            raise CheckpointError(
                f"{name}: no {kind.__name__} can be loaded from it ({first_line(error)}). "
                "It must hold config.json and complete .safetensors (or .bin) files: restore or make them again"
            ) from error
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise CheckpointError(f"{name}: {len(absent)} weights of {kind.__name__} missing or misshapen: {absent[0]}")
    return model.eval()


def read_config(name: str) -> PretrainedConfig:
    """The configuration of a folder or hub id; CheckpointError where there is none, or it asks for code to be run."""
    file = Path(name) / "config.json"
    if file.is_file():  # before transformers looks: it would say how to run the code
        raw = read_json_object(file)
        refuse_code(name, raw)
    with silence_libraries():
        try:
            repo, at = hub.given(name)
            config = AutoConfig.from_pretrained(repo, trust_remote_code=False, **at)
        except Exception as error:  # a malformed one raises whatever its fields meet
            raise CheckpointError(f"{name}: no model's configuration can be read ({first_line(error)})") from error
    refuse_code(name, {"auto_map": getattr(config, "auto_map", None)})
    return config


def read_json_object(file: Path) -> dict:
    """The object of a JSON file of a checkpoint; CheckpointError where it is missing, malformed or something else."""
    try:
        found = read_json(file)
    except DataError as error:
        raise CheckpointError(f"{error}. Download the file again, or make it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{paths.shown(file)}: must hold an object. Download the file again, or make it again")
    return found


def locate(ref: str | Path, base: Path | None = None) -> str:
    """What `from_pretrained` takes: the folder `ref` names (in `base`, the package or the project), else a hub id."""
    for folder in ([Path(base) / ref] if base is not None else []) + [paths.resolve(str(ref))]:
        if folder.exists():
            return str(folder.resolve())
    if hub.is_name(str(ref)):
        return str(ref)
    raise CheckpointError(f"{ref} does not exist. Make it with the step that writes it, or correct the name")


def load_connector(model: LlavaForConditionalGeneration, ref: str | Path) -> None:
    """Put the connector of a file, or of a folder holding `connector.safetensors`, into `model`."""
    file = Path(locate(ref))
    file = file / CONNECTOR_FILE if file.is_dir() else file
    projector = model.model.multi_modal_projector
    weights = read_safetensors(file)
    wanted = connector_state(model)
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in wanted.items()}:
        raise CheckpointError(
            f"{paths.shown(file)}: holds {_shapes(weights)} but this model's connector is {_shapes(wanted)}. "
            "Use a connector trained between the same two models"
        )
    projector.load_state_dict(weights, strict=False)


def connector_state(model: LlavaForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The connector's own weights, without a fixed identity layer."""
    state = model.model.multi_modal_projector.state_dict()
    fixed = "linear_2." if model.config.projector_hidden_act == "linear" else ()
    return {name: tensor for name, tensor in state.items() if not name.startswith(fixed)}


def read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of a file; CheckpointError where it is missing or damaged."""
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{paths.shown(file)}: cannot be read ({first_line(error)}). "
            "Restore the file or run again the step that made it"
        ) from error


def _load_vision(ref: str | Path, *, dtype: str, pad: bool) -> tuple[CLIPVisionModel, BaseImageProcessor]:
    name = locate(ref)
    config = read_config(name)
    with silence_libraries():
        try:
            # the PIL backend everywhere: the torchvision one gives other pixels where it happens to be installed
            kind, options = (LlavaImageProcessorPil, {"do_pad": True}) if pad else (CLIPImageProcessorPil, {})
            repo, at = hub.given(name)
            processor = kind.from_pretrained(repo, trust_remote_code=False, **at, **options)
        except Exception as error:  # as in read_config
            raise CheckpointError(f"{ref}: no image processor can be loaded from it ({first_line(error)})") from error
    if isinstance(config, CLIPConfig):
        return load_pretrained(CLIPModel, name, dtype=dtype).vision_model, processor
    return load_pretrained(CLIPVisionModel, name, dtype=dtype), processor


def _make_projector(model: LlavaForConditionalGeneration, projector: str, seed: int, dtype: torch.dtype) -> None:
    """Fresh layers with torch's own initialisation, which LLaVA used; drawn in float32 so that dtypes agree."""
    layers = model.model.multi_modal_projector
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in ("linear_1", "linear_2"):
            old = getattr(layers, name)
            setattr(layers, name, torch.nn.Linear(old.in_features, old.out_features, bias=old.bias is not None))
    if projector == "linear":
        with torch.no_grad():
            torch.nn.init.eye_(layers.linear_2.weight)
            torch.nn.init.zeros_(layers.linear_2.bias)
        layers.linear_2.requires_grad_(False)
    layers.to(dtype)


def _shapes(weights: dict[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(weights.items()))
