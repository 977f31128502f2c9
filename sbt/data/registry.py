"""Where published data comes from: repository, revision, file, size, hash. `SOURCES` are the training sets.

A benchmark's files are named in its own folder (`sbt/benchmarks/<name>/__init__.py`), as `BenchmarkFiles`.
A hash stands here only where a public page gives it: the repository's own, or copies of the file by two others that
agree. Where it is None, `sbt.data.download` compares with what the Hub reports, records what it found, and insists
on that from then on. Sizes are rounded as those pages show them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sbt.study import inputs

HUB = "hub"  # a data parameter's value for "the publishers' files, downloaded"
HUB_URL = "https://huggingface.co"
MB = 10**6


@dataclass(frozen=True)
class Mirror:
    """One place to download a file from: a dataset repository of the Hub (`repo`, `path`, `revision`) or a `url`."""

    repo: str = ""
    path: str = ""
    revision: str | None = None
    url: str = ""

    def shown(self) -> str:
        """The place for people."""
        return self.url or f"{HUB_URL}/datasets/{self.repo} ({self.path}, revision {self.revision or 'main'})"


@dataclass(frozen=True)
class File:
    """A file, its mirrors in the order they are tried, its size in bytes (rounded; 0: not known) and its digest.

    `digest` begins with `md5:` or `sha256:`. `rows` is the form of its rows (`conversations.FORMATS`), empty for
    images. A file without mirrors has to be put into the downloads folder by hand.
    """

    name: str
    size: int
    mirrors: tuple[Mirror, ...]
    digest: str | None = None
    rows: str = ""


@dataclass(frozen=True)
class Source:
    """A data set and its files.

    `name` is what parameters call it and its folder below the downloads. `number_repeated`: its rows share ids.
    `page`: where to ask, or to fetch by hand; `note`: its terms.
    """

    name: str
    title: str
    files: tuple[File, ...] = ()
    number_repeated: bool = False
    page: str = ""
    note: str = ""


@dataclass(frozen=True)
class BenchmarkFiles:
    """What a benchmark's parameter asks for when its value is "hub".

    `questions` and `pictures` are sources. `pictures` is a dict by task where tasks have different ones, and None
    where only questions are wanted. `names` are the question files. `beside`: questions and pictures are in one zip,
    in the folder that also holds a folder of this name.
    """

    questions: Source
    pictures: Source | Mapping[str, Source] | None = None
    names: tuple[str, ...] = ()
    beside: str = ""

    def wanted(self, data: object, images: object, tasks: Iterable[str] = ()) -> list[Source]:
        """The sources that parameters with these values ask for: `data` of the questions, `images` of the pictures."""
        sources = [self.questions] if data == HUB else []
        if self.pictures is None or not (images == HUB or (data == HUB and not images)):
            return sources
        if isinstance(self.pictures, Mapping):
            return sources + [self.pictures[task] for task in tasks if task in self.pictures]
        return [*sources, self.pictures]


def hub_file(origin: tuple[str, str | None], path: str, size: int, digest: str | None = None, rows: str = "",
             more: tuple[Mirror, ...] = ()) -> File:  # fmt: skip
    """A file of a data set on the Hub, `origin` (repository, revision), and `more` mirrors of the same file."""
    return File(path.rpartition("/")[2], size, (Mirror(origin[0], path, origin[1]), *more), digest, rows)


def url_file(url: str, size: int, digest: str | None = None, *others: str) -> File:
    """A file by its web address, and `others` that serve the same one."""
    return File(url.rpartition("/")[2], size, tuple(Mirror(url=one) for one in (url, *others)), digest)


_CC3M = ("liuhaotian/LLaVA-CC3M-Pretrain-595K", "814894e93db9e12a1dee78b9669e20e8606fd590")
_INSTRUCT = ("liuhaotian/LLaVA-Instruct-150K", "011f884bcf152693aca1d531d067f31e748bea02")
_FIGURES = ("alexshengzhili/SciGraphQA-295K-train", "846da24ffbde24b2992520cc332de677208a68bd")


def _instruct(
    source: str, title: str, name: str, size: int, digest: str | None = None, more: tuple[Mirror, ...] = ()
) -> Source:
    note = "images: coco-train2017. Rows are named by image, so ids repeat"
    return Source(
        source, title, (hub_file(_INSTRUCT, name, size, digest, "llava", more),), number_repeated=True, note=note
    )


_SOURCES = (
    Source(
        "cc3m-595k",
        "CC3M-595K, image and caption: stage 1 of the paper",
        (hub_file(_CC3M, "chat.json", 211 * MB, rows="llava"), hub_file(_CC3M, "images.zip", 6_460 * MB)),
    ),
    _instruct(
        "llava-instruct-80k",
        "LLaVA-Instruct 80k: 40k conversation, 40k reasoning, no detail",
        "llava_instruct_80k.json",
        131 * MB,
    ),
    _instruct(
        "llava-instruct-150k",
        "LLaVA-Instruct 158k: all three types",
        "llava_instruct_150k.json",
        229 * MB,
        "sha256:6b68bc5ca2bfd8a71119af0e8454929668ccda6a334955ccc95d114fc8d082fa",
        (Mirror("williamium/llava", "sft/llava_instruct_150k.json"),),
    ),
    _instruct(
        "llava-conversation-58k",
        "LLaVA-Instruct, conversation",
        "conversation_58k.json",
        126_088_572,
        "sha256:b5593f0d7d4215fb5e2597060dd8335c72518c55cf97e8cd5edf9912a6e3e1b2",
        (Mirror("594zyc/GROUNDHOG-RAW", "LLaVA-Instruct-150K/conversation_58k.json"),),
    ),
    _instruct(
        "llava-detail-23k",
        "LLaVA-Instruct, detailed description",
        "detail_23k.json",
        20_500_000,
        "sha256:e6e0ab72875de62410ed0b85e619efc8ebbb2f1469a110648009d49105ac01c0",
        (Mirror("QingyiSi/llava_data", "LLaVA-Instruct-150K/detail_23k.json"),),
    ),
    _instruct(
        "llava-reasoning-77k",
        "LLaVA-Instruct, complex reasoning",
        "complex_reasoning_77k.json",
        79_619_894,
        "sha256:e7965bd54bb60fcff16fcfd2448cedfce5730a59652d15c08c012a77752548ca",
        (Mirror("QingyiSi/llava_data", "LLaVA-Instruct-150K/complex_reasoning_77k.json"),),
    ),
    Source(
        "coco-train2017",
        "COCO train2017: the images of LLaVA-Instruct",
        (
            url_file(
                "http://images.cocodataset.org/zips/train2017.zip",
                19_340 * MB,
                "md5:cced6f7f71b7629ddf16f17bbcfab6b2",  # given by LVIS, PaddleDetection, FiftyOne and others
                "https://s3.amazonaws.com/images.cocodataset.org/zips/train2017.zip",
            ),
        ),
    ),
    Source(
        "llava-1.5-558k",
        "LLaVA-1.5's stage 1: LAION, CC and SBU with BLIP captions",
        (
            hub_file(("liuhaotian/LLaVA-Pretrain", None), "blip_laion_cc_sbu_558k.json", 181 * MB, rows="llava"),
            hub_file(("liuhaotian/LLaVA-Pretrain", None), "images.zip", 27_400 * MB),
        ),
    ),
    Source(
        "llava-1.5-665k",
        "LLaVA-1.5's stage 2 mix",
        (
            hub_file(
                _INSTRUCT,
                "llava_v1_5_mix665k.json",
                1_030 * MB,
                "sha256:ce959ce6e23073ee1cd1a8a2ef1c633768c10d4174327b8b2dc7113b91af6cf8",
                "llava",
                (Mirror("YanweiLi/LLaMA-VID-Data", "llava_v1_5_mix665k.json"),),
            ),
        ),
        number_repeated=True,
        page="https://github.com/haotian-liu/LLaVA#visual-instruction-tuning",
        note="images: coco-train2017, and GQA, OCR-VQA, TextVQA and Visual Genome from the page, as zips or folders",
    ),
    Source(
        "alpaca-52k",
        "Stanford Alpaca, 52,002 instructions",
        (
            hub_file(
                ("tatsu-lab/alpaca", "ad0d1bfba0420c623c7adafce3482ded744d4e21"),
                "alpaca_data.json",
                22_800_000,
                rows="alpaca",
                more=(
                    Mirror(url="https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/main/alpaca_data.json"),
                ),
            ),
        ),
    ),
    Source(
        "slim-orca",
        "SlimOrca, 517,982 conversations",
        (
            hub_file(
                ("Open-Orca/SlimOrca", "37d14d1992e0782d720388653351f85b3129947a"),
                "oo-labeled_correct.gpt4.sharegpt.jsonl",
                986 * MB,
                "sha256:2e466b7421466f858e355fc939ebbae49ea2f35129726929c23a45fb56157e0f",
                "sharegpt",
            ),
        ),
    ),
    Source(
        "open-orca",
        "OpenOrca, the million answers of GPT-4",
        (
            hub_file(
                ("Open-Orca/OpenOrca", "21ec49645dbf6ff3c85656a7db6a19c9b9880f73"),
                "1M-GPT4-Augmented.parquet",
                1_010 * MB,
                rows="orca",
            ),
        ),
    ),
    Source(
        "scigraphqa",
        "SciGraphQA, 295k figures with questions",
        (
            *(
                hub_file(_FIGURES, f"data/train-{number:05}-of-00004-{name}.parquet", 193 * MB, rows="scigraphqa")
                for number, name in enumerate(
                    ("f92b0b8defd0a6e3", "41e4f32726a2e648", "4d14605cedc8730d", "3bb8835d6b8cb13f")
                )
            ),
            hub_file(
                _FIGURES,
                "img.zip",
                17_978_934_355,
                "sha256:7f878cf681c7def371b871b68bb1f3974a2b4931447758b617dc8cbba88ce3ae",
            ),
        ),
        note="research use only, bound by the terms of PaLM-2, LLaMA and GPT-4",
    ),
    Source(
        "lrv",
        "LRV-Instruction, on images of Visual Genome",
        (File("filter_cap1.json", 0, (), rows="lrv"),),
        page="https://github.com/FuxiaoLiu/LRV-Instruction",
        note="on Google Drive, which hands out no large file without a browser: fetch it from the page by hand",
    ),
)
SOURCES = {source.name: source for source in _SOURCES}
inputs.published = SOURCES
