"""POPE (Li et al. 2023): is the object in the picture?"""

from sbt.benchmarks.common import COCO_VAL2014
from sbt.benchmarks.common.protocol import DIFFERENCES
from sbt.benchmarks.spec import ANSWER_FORMS, VISION_LOGS, Headline, module_spec
from sbt.data.registry import BenchmarkFiles, Source, url_file

# The files since their spelling was mended, in November 2023; the first had 2,910 random questions, not 3,000.
_POPE = "https://raw.githubusercontent.com/RUCAIBox/POPE/3df3ba1b110ecce25696989577fad583b67d4239/output/coco"
_SOURCE = Source(
    "pope",
    "POPE, the three question files over COCO",
    tuple(
        url_file(f"{_POPE}/coco_pope_{split}.json", size, f"sha256:{digest}")
        for split, size, digest in (
            ("random", 368_166, "ac25245170b975a5bdf9080b23fd431dfe6be458bc038259c1f4f09a6bef7994"),
            ("popular", 370_190, "72c1a8ad45d0c13514f5f22598261df41d3b533854d29682e924db50ed8aa753"),
            ("adversarial", 370_401, "420b3407db1fa9f1187a805dca41cb7b97fd91504e6c2179706188c107fb8ef8"),
        )
    ),
    page="https://github.com/RUCAIBox/POPE",
)
FILES = BenchmarkFiles(_SOURCE, COCO_VAL2014, tuple(file.name for file in _SOURCE.files))
SPEC = module_spec(
    "pope", "POPE",
    "Yes/no questions about which objects a picture shows, in three official splits",
    Headline("adversarial", "accuracy", "POPE accuracy (adversarial)", chance=0.5),
    Headline("adversarial", "f1", "POPE F1 (adversarial)"),
    Headline("heldout", "f1", "POPE F1 (held-out pairs)"),
    notebook="63_pope", items=9_000, tokens=20, pictures=500, written=3,
    keys=f"question_id and answer, or question and answer in their order; {ANSWER_FORMS}; {VISION_LOGS}",
    sources={"pope_data": FILES},
    paper=(
        *DIFFERENCES,
        ('with its end sign, "No###" is no word that the parser knows, and counts as yes',
         "UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/pope_metric.py@47f96a3, lines 15-20"),
    ),
)  # fmt: skip
