"""Keys and values of what prompts begin with, for the forward passes over the rest of them."""

from collections.abc import Iterable, Sequence

import torch
from transformers import DynamicCache, LlamaForCausalLM, PretrainedConfig
from transformers.cache_utils import DynamicLayer


def encode_primer(model: LlamaForCausalLM, primer: tuple[int, ...]) -> DynamicCache | None:
    """Keys and values of a primer, for `primed` or `expanded`; None where there is none."""
    if not primer:
        return None
    ids = torch.tensor([primer], device=model.device)
    return model.model(input_ids=ids, use_cache=True).past_key_values


class _Primed(DynamicLayer):
    """One row of keys and values that every pass reads before its own; what a pass computes is not kept.

    An ordinary cache would keep a copy of the primer for every row and layer, more memory than the pass itself needs.
    """

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the primer in front of those of this pass."""
        pairs = ((self.keys, key_states), (self.values, value_states))
        return tuple(torch.cat([own.expand(len(new), *own.shape[1:]), new], dim=-2) for own, new in pairs)


def primed(past: Iterable | None, config: PretrainedConfig) -> DynamicCache | None:
    """A cache for any number of passes of any number of rows that all begin with the primer in `past`."""
    if past is None:
        return None
    cache = DynamicCache(config=config)
    cache.layers = [_Primed() for _ in past.layers]
    for layer, own in zip(cache.layers, past.layers, strict=True):
        layer.lazy_initialization(own.keys, own.values)
        layer.keys, layer.values = own.keys, own.values
    return cache


def expanded(past: Iterable | None, count: int, config: PretrainedConfig) -> DynamicCache | None:
    """A cache of `count` rows that all hold the keys and values of the one row in `past`."""
    if past is None:
        return None
    cache = DynamicCache(config=config)
    for number, layer in enumerate(past.layers):
        keys, values = (part.expand(count, *part.shape[1:]) for part in (layer.keys, layer.values))
        cache.update(keys, values, number)
    return cache


def picked(past: Iterable, rows: Sequence[int], config: PretrainedConfig) -> DynamicCache:
    """A cache whose row number k holds the keys and values of row `rows[k]` of `past`."""
    cache = DynamicCache(config=config)
    for number, layer in enumerate(past.layers):
        cache.update(layer.keys[list(rows)], layer.values[list(rows)], number)
    return cache
