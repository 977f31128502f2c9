"""How training keeps a GPU busy: a step waits for nothing, computes no padding, and repeats only what memory asks for.

Batches are made in the loader's processes: which positions predict a label, how long the rows are, and where each
begins are known before a step begins. Blocks are computed again in the backward pass where memory asks for it.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora.layer import LoraVariant
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sbt.training.collator import IGNORED, Encoded, has_images, row_lengths
from sbt.training.settings import SHARES, Settings
from sbt.training.trainer import core_of
from sbt.utils.env import GB, Choice

ATTENTION = "sbt_rows_end_to_end"  # the name under which transformers finds `_attention`
_KERNELS: set[tuple[torch.device, torch.dtype, int]] = set()  # where torch's kernel for rows of any length was tried
SHARDED = ("fsdp", "zero2", "zero3")
_FRAGMENTS, _SPARE_GB = 1.1, 2.0  # allocated over used; the head's chunk of logits, and kernels' own space
_MOMENTS = 8  # bytes that Adam keeps of a weight


class Prepared:
    """A collator whose batches `LlavaSFTTrainer.compute_loss` takes.

    `places` are the positions in the flattened batch that predict a label, `shift_labels` (1, labels) what they
    predict; `labels` is the same, by which the trainer counts a step's tokens. `flat` lays the rows end to end.
    """

    def __init__(self, collator: Callable[[Sequence[dict]], Encoded], flat: bool = False) -> None:
        self.collator, self.flat = collator, flat

    def __call__(self, rows: Sequence[dict]) -> dict:
        batch = self.collator(rows)
        following = torch.full_like(batch["labels"], IGNORED)
        following[:, :-1] = batch.pop("labels")[:, 1:]
        if self.flat:
            batch, following = end_to_end(batch, following)
        following = following.flatten()
        places = (following != IGNORED).nonzero()[:, 0]
        targets = following[places][None]
        return {**batch, "places": places, "shift_labels": targets, "labels": targets}


def end_to_end(batch: Encoded, following: torch.Tensor) -> tuple[dict, torch.Tensor]:
    """A padded batch, and what each position predicts, as one row without padding.

    Positions begin anew with each row. `row_lengths` (a list) and `row_ends` (rows + 1) tell the attention where.
    """
    real = batch.pop("attention_mask").bool()
    lengths = real.sum(dim=1)
    ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    made = {
        "input_ids": batch.pop("input_ids")[real][None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths.tolist()])[None],
        "row_lengths": lengths.tolist(),
        "row_ends": ends.int(),
    }
    return {**batch, **made}, following[real]


@contextlib.contextmanager
def attention_by_row(core: nn.Module, flat: bool) -> Iterator[None]:
    """While open, the language model of `core` attends within the rows of a batch that is laid end to end."""
    config = core.get_decoder().config
    before = config._attn_implementation
    if flat:
        config._attn_implementation = ATTENTION
        if torch.cuda.is_available():  # tried now: within a checkpointed block a backward pass would recompute it
            device = torch.device("cuda", torch.cuda.current_device())
            width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            sorts = ((device, dtype, width) for dtype in (torch.bfloat16, torch.float16))
            _KERNELS.update(sort for sort in sorts if sort not in _KERNELS and _has_kernel(*sort))
    try:
        yield
    finally:
        config._attn_implementation = before


class _InOneProduct(LoraVariant):
    """LoRA's update added by the product that makes it, and its input left in the format that is computed in.

    PEFT copies the input of every adapter to float32, which autocast then copies back, and adds the update in passes
    of its own over all outputs.
    """

    @staticmethod
    def forward(
        module: LoraLinear, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs: object
    ) -> torch.Tensor:
        low = module.lora_A[active_adapter](module.lora_dropout[active_adapter](x))
        up, scale = module.lora_B[active_adapter].weight, module.scaling[active_adapter]
        return torch.addmm(result.flatten(0, -2), low.flatten(0, -2), up.t(), alpha=scale).view_as(result)


@contextlib.contextmanager
def lean_adapters(model: nn.Module, wanted: bool) -> Iterator[None]:
    """While open, and if `wanted`, plain LoRA layers compute as `_InOneProduct` does: in one process, or by `ddp`.

    An engine that spreads the weights gathers them for a module that is called, and here one is read.
    """
    layers = [module for module in model.modules() if wanted and type(module) is LoraLinear]
    layers = [layer for layer in layers if not layer.lora_variant]  # which is DoRA, say
    with disable_input_dtype_casting(model, active=bool(layers)):
        for layer in layers:
            layer.lora_variant.update(dict.fromkeys(layer.lora_A, _InOneProduct()))
        try:
            yield
        finally:
            for layer in layers:
                layer.lora_variant.clear()


def can_lay_flat(core: nn.Module) -> bool:
    """Whether rows of this model can be laid end to end: its attention is torch's own, which is what replaces it."""
    return core.get_decoder().config._attn_implementation == "sdpa"


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    row_lengths: list[int] | None = None,
    row_ends: torch.Tensor | None = None,
    **given: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention of (1, heads, tokens, width) within each row, as (1, tokens, heads, width).

    A batch that is not laid end to end is padded on the right, where causal attention needs no mask.
    """
    if row_lengths is None:
        return sdpa_attention_forward(module, query, key, value, None, **given)
    if (query.device, query.dtype, query.shape[-1]) in _KERNELS:
        return _in_one_call(query, key, value, row_ends, max(row_lengths), given["scaling"]), None
    return _row_by_row(module, (query, key, value), row_lengths, **given), None


def _row_by_row(module: nn.Module, heads: Sequence[torch.Tensor], lengths: list[int], **given: object) -> torch.Tensor:
    """Attention of each row by itself; `heads` are query, key and value."""
    parts = zip(*(tensor.split(lengths, dim=2) for tensor in heads), strict=True)
    return torch.cat([sdpa_attention_forward(module, *part, None, **given)[0] for part in parts], dim=1)


def _in_one_call(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: torch.Tensor, longest: int, scale: float
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    heads = [tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value)]
    shared = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
    return varlen_attn(*heads, ends, ends, longest, longest, scale=scale, window_size=(-1, 0), **shared)[None]


def _has_kernel(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether torch's kernel for rows of any length is there and gives what row by row gives, backward too."""
    lengths, found = [5, 12, 3], []
    ends = torch.tensor([0, 5, 17, 20], dtype=torch.int32, device=device)
    plain = nn.Module()
    try:
        with torch.random.fork_rng(devices=[device]), torch.enable_grad():
            torch.manual_seed(0)
            heads = [torch.randn(1, 2, 20, width, device=device).to(dtype).requires_grad_() for _ in range(3)]
            ways = (
                lambda: _in_one_call(*heads, ends, 12, width**-0.5),
                lambda: _row_by_row(plain, heads, lengths, scaling=width**-0.5, is_causal=True),
            )
            for way in ways:
                out = way()
                found.append([out, *torch.autograd.grad(out.float().square().sum(), heads)])
    except Exception:  # whatever a build of torch raises that has no such kernel, or another signature of it
        return False
    return all(torch.allclose(a.float(), b.float(), atol=0.05, rtol=0.05) for a, b in zip(*found, strict=True))


AttentionInterface.register(ATTENTION, _attention)


def free_gb(device: torch.device) -> float:
    """Gigabytes that this process can still allocate on its GPU."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + kept) / GB


def checkpointing(
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

        def keep(tensor: torch.Tensor, found: dict[int, torch.UntypedStorage] = found) -> None:
            """Keep the memory and hand no tensor back: a node that saved its own output would hold itself for ever."""
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()

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
