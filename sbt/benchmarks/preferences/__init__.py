"""Held-out questions of `35_preference_alignment`, which a rule that knows the micro-world judges."""

from collections.abc import Sequence

from sbt.benchmarks.spec import Headline, Spec

SPEC = Spec(
    name="preference_heldout",
    title="Held-out questions of preference alignment",
    kind="vision",
    table="Preference alignment",
    headline=(
        Headline("picture", "right", "right about pictures"),
        Headline("fact", "right", "right about facts"),
        Headline("words", "right", "right about words"),
    ),
    about="Questions that no preference was trained on, about pictures and in words alone; the share of right answers",
    notebook="35_preference_alignment",
    per_item="sbt.benchmarks.preferences:per_item",
    asked=("start", "table", "max_new_tokens"),
)


def per_item(samples: Sequence[dict]) -> dict:
    """Right answers (1, 0) about pictures and in words alone, items x arms, from the samples of a step."""
    import pandas as pd  # here: a plan needs none

    rows = pd.DataFrame(samples)
    parts = rows.groupby(rows["kind"].eq("picture").map({True: "held-out pictures", False: "held-out texts"}))
    return {name: part.pivot(index="id", columns="arm", values="right").dropna(axis=1) for name, part in parts}
