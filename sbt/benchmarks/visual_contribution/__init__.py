"""Visual contribution: how much likelier the picture makes an arm's answers."""

from sbt.benchmarks.spec import Headline, Spec

SPEC = Spec(
    name="visual contribution",
    title="Visual contribution",
    kind="vision",
    table="Vision",
    headline=(
        Headline("held out", "visual contribution", "visual contribution (nats a token)", chance=0.0),
    ),
    about="How much likelier the picture makes held-out answers than noise does.",
    notebook="65_visual_contribution",
)
