"""What several benchmarks share."""

from pathlib import Path
from urllib.parse import quote

import yaml

from sbt.data.registry import BenchmarkFiles, File, Mirror, Source, url_file
from sbt.utils.files import read_text

COCO_VAL2014 = Source(
    "coco-val2014",
    "COCO val2014: the pictures of VQAv2, POPE and the captions",
    (
        url_file(
            "http://images.cocodataset.org/zips/val2014.zip",
            6_645_013_297,
            "md5:a3d79f5ed8d289b7a7554ce06a5782b3",  # given by PaddleDetection, LAVIS, FiftyOne and others
            "https://s3.amazonaws.com/images.cocodataset.org/zips/val2014.zip",
        ),
    ),
    page="https://cocodataset.org/#download",
)
_MMDPO = "https://raw.githubusercontent.com/findalexli/mllm-dpo/67f651cea8464ebce8d8497069499fa919f9cfda"


def released(benchmark: str, title: str, folder: str, listed: Path) -> BenchmarkFiles:
    """Answer files that the authors of multi-modal preference alignment released, each under the name of its arm.

    `folder` is theirs; `listed` maps our names to their file, its bytes and its SHA-256.
    """
    files = tuple(
        File(name + Path(there).suffix, size, (Mirror(url=f"{_MMDPO}/{folder}/{quote(there)}"),), f"sha256:{digest}")
        for name, (there, size, digest) in yaml.safe_load(read_text(listed)).items()
    )
    source = Source(f"{benchmark}-released", title, files, page="https://github.com/findalexli/mllm-dpo")
    return BenchmarkFiles(source, None, tuple(file.name for file in files))
