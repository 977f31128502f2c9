"""BoolQ (Clark et al. 2019): yes or no, from a passage."""

from sbt.benchmarks.spec import Headline, Spec
from sbt.data.registry import BenchmarkFiles, File, Mirror, Source

_HUB = ("aps/super_glue", "3de24cf8022e94f4ee4b9d55a6f539891524d646")
SOURCE = Source(
    "boolq",
    "BoolQ as part of SuperGLUE",
    (File("boolq.parquet", 0, (Mirror(_HUB[0], "boolq/validation-00000-of-00001.parquet", _HUB[1]),)),),
    page="https://github.com/google-research-datasets/boolean-questions",
)
SPEC = Spec(
    name="boolq",
    title="BoolQ",
    kind="text",
    table="Language ability",
    headline=(Headline("all", "acc", "BoolQ", chance=0.5),),
    about="Is the answer to a question about a passage yes? Zero-shot",
    notebook="52_language_ability",
    task="sbt.benchmarks.boolq.task:BOOLQ",
    per_item="sbt.benchmarks.boolq.task:BOOLQ.item_scores",
    sources={"sources.boolq": BenchmarkFiles(SOURCE)},
    protocols={"standard": (), "paper": ()},
    items=3270,
    tokens=140,
)
