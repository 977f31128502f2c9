"""Scores of single items, read back from the samples that a text benchmark's step keeps."""

from collections.abc import Mapping, Sequence

import pandas as pd


def item_scores(
    samples: Sequence[Mapping], benchmark: str, scores: Mapping[str, str], items: str | list[str] = "id"
) -> dict[str, pd.DataFrame]:
    """A table of items x arms for each of `scores`, {name of the table: key of the samples}.

    `items` are the keys that name an item. Samples of other benchmarks, and without that score, are left out; a table
    without any sample is, too.
    """
    own = pd.DataFrame([row for row in samples if row.get("benchmark", benchmark) == benchmark])
    found = {}
    for name, key in scores.items():
        kept = own[own[key].notna()] if key in own else own[:0]
        if len(kept):
            found[name] = kept.pivot(index=items, columns="arm", values=key).astype(float)
    return found
