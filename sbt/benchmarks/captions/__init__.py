"""Captions of COCO and Flickr30k (Chen et al. 2015): one caption a picture against several references."""

from sbt.benchmarks.common import protocol
from sbt.benchmarks.spec import Headline, Spec

_TASK = "sbt.benchmarks.captions.task"
SPEC = Spec(
    name="captions",
    title="Captions (COCO, Flickr30k)",
    kind="vision",
    table="Vision",
    headline=(Headline("real", "CIDEr", "captions CIDEr", best=10.0),),
    about="One caption a picture against several references, by coco-caption's metrics; also under corruptions",
    notebook="62_captioning",
    per_item=f"{_TASK}:per_item",
    score_files=f"{_TASK}:score_files",
    answer_keys="image_id (or image_name) and caption",
    protocols={
        "standard": (),
        "paper": (  # UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/*@47f96a3
            *protocol.DIFFERENCES,
            (
                "three training captions stand before each picture as turns of text, drawn without a seed, here with "
                "it",
                "evaluate.py:617-618, 641-712",
            ),
            ("double quotes are taken out of a caption", "evaluate.py:737-739"),
            (
                "their tables are CIDEr times 100: `sbt score captions --protocol paper` prints that",
                "evaluate.py:771",
            ),
            (
                "a picture given by number is looked for as COCO_test2014_*, of which there are no captions; here "
                "val2014",
                "eval_datasets.py:22-31",
            ),
            (
                "corrupted pictures are read from folders, by default of severities 1, 3 and 5; neither these nor "
                "code that makes them or averages over them is published, so both are this project's here",
                "evaluate.py:208-241, 372-403",
            ),
        ),
    },
    items=6_000,
    tokens=70,
)
