"""Captions of COCO and Flickr30k (Chen et al. 2015): one caption a picture against several references."""

from sbt.benchmarks.common import COCO_VAL2014
from sbt.benchmarks.common.protocol import DIFFERENCES
from sbt.benchmarks.spec import ANSWER_FORMS, VISION_LOGS, Headline, module_spec
from sbt.data.registry import BenchmarkFiles, Source, hub_file, url_file

_CAPTIONS = Source(
    "captions",
    "Karpathy's splits of COCO's and Flickr30k's captions",
    (
        url_file(
            "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
            36_745_453,
            "sha256:4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817",
        ),
    ),
    page="https://cs.stanford.edu/people/karpathy/deepimagesent",
)
_FLICKR30K = Source(
    "flickr30k-images",
    "Flickr30k, pictures: from a copy on the Hub",
    (
        hub_file(
            ("nlphuji/flickr30k", "2b239befc81b6e3f035ce6bd52f5f4d60f5625f7"),
            "flickr30k-images.zip",
            4_390_240_817,
            "sha256:f78a015e45ea38d4367367223b2bb63cec0d549d5da13c6211663e5439a93216",
        ),
    ),
    page="https://forms.illinois.edu/sec/229675",
    note="the publishers give them out to those who fill in the form at https://forms.illinois.edu/sec/229675 "
    "and agree to research use: do so first",
)
FILES = {
    "coco": BenchmarkFiles(_CAPTIONS, COCO_VAL2014, ("dataset_coco.json",)),
    "flickr30k": BenchmarkFiles(_CAPTIONS, _FLICKR30K, ("dataset_flickr30k.json",)),
    "demonstrations": BenchmarkFiles(_CAPTIONS, None, ("dataset_coco.json",)),
}
SPEC = module_spec(
    "captions", "Captions (COCO, Flickr30k)",
    "One caption a picture against several references, by coco-caption's metrics; also under corruptions",
    Headline("real", "CIDEr", "captions CIDEr"),
    Headline("all corruptions", "relative_drop", "captions, share lost under corruption", chance=0.0),
    notebook="62_captioning", items=6_000, tokens=70, written=20,
    keys=f"image_id (or image_name) and caption; {ANSWER_FORMS}; {VISION_LOGS}",
    sources={"references": FILES["coco"], "demonstrations": FILES["demonstrations"], "flickr": FILES["flickr30k"]},
    paper=(  # UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/*@47f96a3
        *DIFFERENCES,
        ("three training captions stand before each picture as turns of text, drawn without a seed, here with "
         "it",
         "evaluate.py:617-618, 641-712"),
        ("double quotes are taken out of a caption", "evaluate.py:737-739"),
        ("their tables are CIDEr times 100: `sbt score captions --protocol paper` prints that", "evaluate.py:771"),
        ("a picture given by number is looked for as COCO_test2014_*, of which there are no captions; here "
         "val2014",
         "eval_datasets.py:22-31"),
        ("corrupted pictures are read from folders, by default of severities 1, 3 and 5; neither these nor "
         "code that makes them or averages over them is published, so both are this project's here",
         "evaluate.py:208-241, 372-403"),
    ),
)  # fmt: skip
