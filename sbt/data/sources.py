"""Where training data comes from: repository, revision, file, size, hash. Vision benchmarks: `vision_sources`.

A hash stands here only where a public page gives it: the repository's own, or copies of the file by two others that
agree. Where it is None, `sbt.data.downloads` compares with what the Hub reports, records what it found, and insists
on that from then on. Sizes are rounded as those pages show them: they serve the check of the disk.
"""

from sbt.data.places import HUB, MB, File, Place, Source
from sbt.data.vision_sources import VISION
from sbt.utils.errors import ParameterError
from sbt.utils.text import nearest

__all__ = ["HUB", "SOURCES", "File", "Place", "Source", "get"]
_CC3M = ("liuhaotian/LLaVA-CC3M-Pretrain-595K", "814894e93db9e12a1dee78b9669e20e8606fd590")
_INSTRUCT = ("liuhaotian/LLaVA-Instruct-150K", "011f884bcf152693aca1d531d067f31e748bea02")
_FIGURES = ("alexshengzhili/SciGraphQA-295K-train", "846da24ffbde24b2992520cc332de677208a68bd")


def _hub(origin: tuple[str, str | None], name: str, size: int, digest: str | None = None, rows: str = "",
         more: tuple[Place, ...] = ()) -> File:  # fmt: skip
    return File(name.rpartition("/")[2], size, (Place(origin[0], name, origin[1]), *more), digest, rows)


def _instruct(title: str, name: str, size: int, digest: str | None = None, more: tuple[Place, ...] = ()) -> Source:
    note = "images: coco-train2017. Rows are named by image, so ids repeat"
    return Source(title, (_hub(_INSTRUCT, name, size, digest, "llava", more),), number_repeated=True, note=note)


SOURCES: dict[str, Source] = {
    "cc3m-595k": Source(
        "CC3M-595K, image and caption: stage 1 of the paper",
        (_hub(_CC3M, "chat.json", 211 * MB, rows="llava"), _hub(_CC3M, "images.zip", 6_460 * MB)),
    ),
    "llava-instruct-80k": _instruct(
        "LLaVA-Instruct 80k: 40k conversation, 40k reasoning, no detail", "llava_instruct_80k.json", 131 * MB
    ),
    "llava-instruct-150k": _instruct(
        "LLaVA-Instruct 158k: all three types",
        "llava_instruct_150k.json",
        229 * MB,
        "sha256:6b68bc5ca2bfd8a71119af0e8454929668ccda6a334955ccc95d114fc8d082fa",
        (Place("williamium/llava", "sft/llava_instruct_150k.json"),),
    ),
    "llava-conversation-58k": _instruct(
        "LLaVA-Instruct, conversation",
        "conversation_58k.json",
        126_088_572,
        "sha256:b5593f0d7d4215fb5e2597060dd8335c72518c55cf97e8cd5edf9912a6e3e1b2",
        (Place("594zyc/GROUNDHOG-RAW", "LLaVA-Instruct-150K/conversation_58k.json"),),
    ),
    "llava-detail-23k": _instruct(
        "LLaVA-Instruct, detailed description",
        "detail_23k.json",
        20_500_000,
        "sha256:e6e0ab72875de62410ed0b85e619efc8ebbb2f1469a110648009d49105ac01c0",
        (Place("QingyiSi/llava_data", "LLaVA-Instruct-150K/detail_23k.json"),),
    ),
    "llava-reasoning-77k": _instruct(
        "LLaVA-Instruct, complex reasoning",
        "complex_reasoning_77k.json",
        79_619_894,
        "sha256:e7965bd54bb60fcff16fcfd2448cedfce5730a59652d15c08c012a77752548ca",
        (Place("QingyiSi/llava_data", "LLaVA-Instruct-150K/complex_reasoning_77k.json"),),
    ),
    "coco-train2017": Source(
        "COCO train2017: the images of LLaVA-Instruct",
        (
            File(
                "train2017.zip",
                19_340 * MB,
                (
                    Place(url="http://images.cocodataset.org/zips/train2017.zip"),
                    Place(url="https://s3.amazonaws.com/images.cocodataset.org/zips/train2017.zip"),
                ),
                "md5:cced6f7f71b7629ddf16f17bbcfab6b2",  # given by LVIS, PaddleDetection, FiftyOne and others
            ),
        ),
    ),
    "llava-1.5-558k": Source(
        "LLaVA-1.5's stage 1: LAION, CC and SBU with BLIP captions",
        (
            _hub(("liuhaotian/LLaVA-Pretrain", None), "blip_laion_cc_sbu_558k.json", 181 * MB, rows="llava"),
            _hub(("liuhaotian/LLaVA-Pretrain", None), "images.zip", 27_400 * MB),
        ),
    ),
    "llava-1.5-665k": Source(
        "LLaVA-1.5's stage 2 mix",
        (
            _hub(
                _INSTRUCT,
                "llava_v1_5_mix665k.json",
                1_030 * MB,
                "sha256:ce959ce6e23073ee1cd1a8a2ef1c633768c10d4174327b8b2dc7113b91af6cf8",
                "llava",
                (Place("YanweiLi/LLaMA-VID-Data", "llava_v1_5_mix665k.json"),),
            ),
        ),
        number_repeated=True,
        page="https://github.com/haotian-liu/LLaVA#visual-instruction-tuning",
        note="images: coco-train2017, and GQA, OCR-VQA, TextVQA and Visual Genome from the page, as zips or folders",
    ),
    "alpaca-52k": Source(
        "Stanford Alpaca, 52,002 instructions",
        (
            _hub(
                ("tatsu-lab/alpaca", "ad0d1bfba0420c623c7adafce3482ded744d4e21"),
                "alpaca_data.json",
                22_800_000,
                rows="alpaca",
                more=(Place(url="https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/main/alpaca_data.json"),),
            ),
        ),
    ),
    "slim-orca": Source(
        "SlimOrca, 517,982 conversations",
        (
            _hub(
                ("Open-Orca/SlimOrca", "37d14d1992e0782d720388653351f85b3129947a"),
                "oo-labeled_correct.gpt4.sharegpt.jsonl",
                986 * MB,
                "sha256:2e466b7421466f858e355fc939ebbae49ea2f35129726929c23a45fb56157e0f",
                "sharegpt",
            ),
        ),
    ),
    "open-orca": Source(
        "OpenOrca, the million answers of GPT-4",
        (
            _hub(
                ("Open-Orca/OpenOrca", "21ec49645dbf6ff3c85656a7db6a19c9b9880f73"),
                "1M-GPT4-Augmented.parquet",
                1_010 * MB,
                rows="orca",
            ),
        ),
    ),
    "scigraphqa": Source(
        "SciGraphQA, 295k figures with questions",
        (
            *(
                _hub(_FIGURES, f"data/train-{number:05}-of-00004-{name}.parquet", 193 * MB, rows="scigraphqa")
                for number, name in enumerate(
                    ("f92b0b8defd0a6e3", "41e4f32726a2e648", "4d14605cedc8730d", "3bb8835d6b8cb13f")
                )
            ),
            _hub(
                _FIGURES,
                "img.zip",
                17_978_934_355,
                "sha256:7f878cf681c7def371b871b68bb1f3974a2b4931447758b617dc8cbba88ce3ae",
            ),
        ),
        note="research use only, bound by the terms of PaLM-2, LLaMA and GPT-4",
    ),
    "lrv": Source(
        "LRV-Instruction, on images of Visual Genome",
        (File("filter_cap1.json", 0, (), rows="lrv"),),
        page="https://github.com/FuxiaoLiu/LRV-Instruction",
        note="on Google Drive, which hands out no large file without a browser: fetch it from the page by hand",
    ),
}


def get(name: str) -> Source:
    """A source by name, of training data or a vision benchmark; ParameterError with a suggestion for another one."""
    known = VISION | SOURCES
    if name not in known:
        raise ParameterError(f"data source {name!r} is unknown{nearest(str(name), known)}")
    return known[name]
