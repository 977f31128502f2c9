"""BoolQ (Clark et al. 2019): yes or no, from a passage."""

from sbt.benchmarks.spec import Headline, language_spec
from sbt.data.registry import File, Mirror, Source

_HUB = ("aps/super_glue", "3de24cf8022e94f4ee4b9d55a6f539891524d646")
SOURCE = Source(
    "boolq",
    "BoolQ as part of SuperGLUE",
    (File("boolq.parquet", 0, (Mirror(_HUB[0], "boolq/validation-00000-of-00001.parquet", _HUB[1]),)),),
    page="https://github.com/google-research-datasets/boolean-questions",
)
SPEC = language_spec(
    SOURCE, "BoolQ", "Is the answer to a question about a passage yes? Zero-shot",
    Headline("all", "acc", "BoolQ", chance=0.5), options="no and yes", items=3270, tokens=140,
)  # fmt: skip
