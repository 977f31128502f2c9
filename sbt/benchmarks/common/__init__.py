"""What several benchmarks share."""

from sbt.data.registry import Source, url_file

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
