"""Where the vision benchmarks' own files come from, and which of them a notebook's parameters ask for with "hub".

`sources` says how hashes and sizes got here. What is given out on request only has no place: its page says where.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sbt.benchmarks.unicorn.metric import OODCV, TASKS
from sbt.benchmarks.vqav2 import files as vqav2_files
from sbt.data.places import MB, File, Place, Source

HUB = "hub"  # value of a data parameter, of the text benchmarks' too
_COCO = ("http://images.cocodataset.org/zips", "https://s3.amazonaws.com/images.cocodataset.org/zips")
_VQA = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
# The files since their spelling was mended, in November 2023; the first had 2,910 random questions, not 3,000.
_POPE = "https://raw.githubusercontent.com/RUCAIBox/POPE/3df3ba1b110ecce25696989577fad583b67d4239/output/coco"
_UNICORN = "https://github.com/UCSC-VLAA/vllm-safety-benchmark#datasets"


def _file(url: str, size: int, digest: str | None = None, *others: str) -> File:
    return File(url.rpartition("/")[2], size, tuple(Place(url=one) for one in (url, *others)), digest)


VISION: dict[str, Source] = {
    "mme": Source(
        "MME, questions and pictures",
        (
            File(
                "MME_Benchmark_release_version.zip",
                200 * MB,
                (Place("darkyarding/MME", "MME_Benchmark_release_version.zip"),),
            ),
        ),
        page="https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation",
        note="research use only. The publishers give out the pictures of landmark and artwork apart: on_bad='skip' "
        "leaves out those that are not there",
    ),
    "vqav2": Source(
        "VQAv2, questions and annotations of val2014",
        (
            _file(f"{_VQA}/v2_Questions_Val_mscoco.zip", 4 * MB),
            _file(f"{_VQA}/v2_Annotations_Val_mscoco.zip", 11 * MB),
        ),
        page="https://visualqa.org/download.html",
    ),
    "coco-val2014": Source(
        "COCO val2014: the pictures of VQAv2, POPE and the captions",
        (  # the digest is given by PaddleDetection, LAVIS, FiftyOne and others
            _file(
                f"{_COCO[0]}/val2014.zip",
                6_645_013_297,
                "md5:a3d79f5ed8d289b7a7554ce06a5782b3",
                f"{_COCO[1]}/val2014.zip",
            ),
        ),
        page="https://cocodataset.org/#download",
    ),
    "captions": Source(
        "Karpathy's splits of COCO's and Flickr30k's captions",
        (
            _file(
                "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
                36_745_453,
                "sha256:4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817",
            ),
        ),
        page="https://cs.stanford.edu/people/karpathy/deepimagesent",
    ),
    "flickr30k-images": Source(
        "Flickr30k, pictures: from a copy on the Hub",
        (
            File(
                "flickr30k-images.zip",
                4_390_240_817,
                (Place("nlphuji/flickr30k", "flickr30k-images.zip", "2b239befc81b6e3f035ce6bd52f5f4d60f5625f7"),),
                "sha256:f78a015e45ea38d4367367223b2bb63cec0d549d5da13c6211663e5439a93216",
            ),
        ),
        page="https://forms.illinois.edu/sec/229675",
        note="the publishers give them out to those who fill in the form at https://forms.illinois.edu/sec/229675 "
        "and agree to research use: do so first",
    ),
    "pope": Source(
        "POPE, the three question files over COCO",
        (
            _file(
                f"{_POPE}/coco_pope_random.json",
                368_166,
                "sha256:ac25245170b975a5bdf9080b23fd431dfe6be458bc038259c1f4f09a6bef7994",
            ),
            _file(
                f"{_POPE}/coco_pope_popular.json",
                370_190,
                "sha256:72c1a8ad45d0c13514f5f22598261df41d3b533854d29682e924db50ed8aa753",
            ),
            _file(
                f"{_POPE}/coco_pope_adversarial.json",
                370_401,
                "sha256:420b3407db1fa9f1187a805dca41cb7b97fd91504e6c2179706188c107fb8ef8",
            ),
        ),
        page="https://github.com/RUCAIBox/POPE",
    ),
    "unicorn": Source(
        "UnicornBench, the questions of its four tasks",
        (
            File(
                "safety_evaluation_benchmark_datasets.zip",
                251_930_888,
                (
                    Place(
                        "PahaII/vllm_safety_evaluation",
                        "safety_evaluation_benchmark_datasets.zip",
                        "e67c71158bbf981dba3188c02075fb2c1745c755",
                    ),
                ),
                "sha256:4823fe51288af2770d6aabfc11ba7b4a54f20e446773446211b99cc23cfdb377",
            ),
        ),
        page=_UNICORN,
        note="research use only (CC BY-NC 4.0)",
    ),
    "sketches": Source(
        "TU Berlin's line drawings: the pictures of Sketchy-VQA",
        (_file("https://cybertron.cg.tu-berlin.de/eitz/projects/classifysketch/sketches_png.zip", 525 * MB),),
        page=_UNICORN,
    ),
    "oodcv-images": Source(
        "OOD-CV, the pictures of OODCV-VQA",
        (File("oodcv-images.zip", 0, ()),),
        page=_UNICORN,
        note="on Google Drive, which hands out no large file without a browser: fetch the zip from the page by hand",
    ),
}


class Parts(NamedTuple):
    """What a benchmark is made of: sources of the questions and of the pictures, and the question files' names.

    `beside`: both are in one zip, in the folder that holds a folder of this name. `folder`: the downloads that the
    pictures are unpacked to, where benchmarks with several sources of them are asked about together.
    """

    questions: str
    pictures: str
    files: tuple[str, ...] = ()
    beside: str = ""
    folder: str = ""


BENCHMARKS = {
    "mme": Parts("mme", "mme", beside="existence"),
    "vqav2": Parts("vqav2", "coco-val2014", vqav2_files.OFFICIAL[0]),
    "coco": Parts("captions", "coco-val2014", ("dataset_coco.json",)),
    "flickr30k": Parts("captions", "flickr30k-images", ("dataset_flickr30k.json",)),
    "pope": Parts("pope", "coco-val2014", tuple(file.name for file in VISION["pope"].files)),
    "unicorn": Parts("unicorn", "", tuple(f"{task}.json" for task in TASKS)),
    **{task: Parts("unicorn", "oodcv-images" if task in OODCV else "sketches", folder="unicorn") for task in TASKS},
}
# By data parameter: the benchmark, and whether the parameter `images` of the same step is of its pictures.
_PARAMETERS = {
    "mme_data": ("mme", True),
    "questions_file": ("vqav2", True),
    "references": ("coco", True),
    "demonstrations": ("coco", False),
    "pope_data": ("pope", True),
    "unicorn_data": ("unicorn", True),
}


def asked(values: Mapping[str, object]) -> list[str]:
    """The sources that a step with these parameter values fetches, each once."""
    found: list[str] = []
    for name, (benchmark, shown) in _PARAMETERS.items():
        if name in values:
            images = values.get("images", "") if shown else "none"
            found += _wanted(benchmark, values[name], images, values.get("tasks", ()))
    flickr = values.get("flickr")
    if isinstance(flickr, Mapping):
        found += _wanted("flickr30k", flickr.get("references"), flickr.get("images", ""))
    return list(dict.fromkeys(found))


def _wanted(benchmark: str, data: object, images: object, tasks: Iterable[str] = ()) -> list[str]:
    found = [BENCHMARKS[benchmark].questions] if data == HUB else []
    if images == HUB or (data == HUB and not images):
        several = [task for task in tasks if task in BENCHMARKS] if benchmark == "unicorn" else [benchmark]
        found += [BENCHMARKS[one].pictures for one in several]
    return found
