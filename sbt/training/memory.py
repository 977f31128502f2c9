"""Which blocks of a model to compute again in the backward pass: as few as the GPU's memory allows."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from sbt.training.packing import Prepared
from sbt.training.sampler import has_images, row_lengths
from sbt.training.settings import Settings
from sbt.training.trainer import core_of
from sbt.utils.env import GB, Choice

SHARES = {"none": 0.0, "half": 0.5, "all": 1.0}  # of the blocks that are computed again
SHARDED = ("fsdp", "zero2", "zero3")
_FRAGMENTS, _SPARE_GB = 1.1, 2.0  # allocated over used; the head's chunk of logits, and kernels' own space
_MOMENTS = 8  # bytes that Adam keeps of a weight


def free_gb(device: torch.device) -> float:
    """Gigabytes that this process can still allocate on its GPU."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + kept) / GB


def choose(
    model: nn.Module,
    rows: Sequence[dict],
    collate: Prepared,
    settings: Settings,
    engine: str,
    room: Callable[[torch.device], float] = free_gb,
) -> Choice:
    """One of SHARES and why: the least that fits a batch of the longest rows beside gradients and optimizer.

    What a token leaves for the backward pass is measured: what two short passes keep, not what a formula says.
    """
    device = next(model.parameters()).device
    if device.type == "cpu" and room is free_gb:
        return Choice("none", "no GPU")
    if engine in SHARDED:
        return Choice("all", f"engine {engine!r} spreads the weights only when training begins")
    pictured, lengths = has_images(rows), row_lengths(rows)
    order = sorted(range(len(lengths)), key=lambda row: (pictured[row], lengths[row]), reverse=True)
    longest = [rows[row] for row in order[: settings.batch_size]]
    tokens = collate(longest)["input_ids"].numel()
    padded, some = Prepared(collate.collator), min(2, len(longest))
    token = _kept_by_a_token(model, [padded(longest[:count]) for count in range(1, some + 1)], settings)
    free = room(device)
    found = []
    for name, share in SHARES.items():
        need = _FRAGMENTS * (_states(model, settings, engine) + tokens * _activations(model, token, share)) / GB
        found.append(f"{name} takes {need + _SPARE_GB:.1f} GB")
        if need + _SPARE_GB <= free:
            break
    return Choice(name, f"{', '.join(found)}; {free:.1f} GB are free")


def _states(model: nn.Module, settings: Settings, engine: str) -> float:
    """Bytes of gradients, of Adam's moments and of half-precision copies of what trains."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = sum(weight.numel() * weight.element_size() for weight in weights) * (2 if engine == "ddp" else 1)
    copies = 2 * (settings.bf16 or settings.fp16)
    return gradients + (_MOMENTS + copies) * sum(weight.numel() for weight in weights)


def _activations(model: nn.Module, token: float, share: float) -> float:
    """Bytes of a token: blocks that are computed again keep their input, and one at a time all of it."""
    config = core_of(model).config.get_text_config()
    layers = config.num_hidden_layers
    inputs = layers * config.hidden_size * core_of(model).get_input_embeddings().weight.element_size()
    return (1 - share) * token + share * inputs + (token / layers if share else 0)


def _kept_by_a_token(model: nn.Module, batches: Sequence[dict], settings: Settings) -> float:
    """Bytes that a forward pass keeps for a further token: the difference of two passes, so that weights drop out."""
    device, kept = next(model.parameters()).device, []
    half = torch.bfloat16 if settings.bf16 else torch.float16
    training = model.training
    model.train()
    devices = [device] if device.type == "cuda" else []
    for batch in batches:
        found: dict[int, torch.UntypedStorage] = {}  # held, so that no address is given out twice

        def keep(tensor: torch.Tensor, found: dict[int, torch.UntypedStorage] = found) -> torch.Tensor:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        read = {name: value for name, value in batch.items() if name not in ("labels", "shift_labels", "places")}
        read = {name: value.to(device) if torch.is_tensor(value) else value for name, value in read.items()}
        with (
            torch.random.fork_rng(devices=devices),
            torch.autocast(device.type, half, enabled=settings.bf16 or settings.fp16),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            output = core_of(model).base_model(**read, use_cache=False)
        kept.append((sum(storage.nbytes() for storage in found.values()), batch["input_ids"].numel()))
        del output
    model.train(training)
    (few, short), (many, long) = kept if len(kept) > 1 else ((0, 0), kept[0])
    return (many - few) / (long - short)
