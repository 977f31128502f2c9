"""VQAv2 (Goyal et al. 2017): open questions about COCO val2014, ten annotators' answers each."""

from sbt.benchmarks.common import COCO_VAL2014
from sbt.benchmarks.common.protocol import DIFFERENCES
from sbt.benchmarks.spec import ANSWER_FORMS, VISION_LOGS, Headline, module_spec
from sbt.data.registry import MB, BenchmarkFiles, Source, url_file

OFFICIAL = (  # names of the files of questions and annotations: the publishers', and any others
    ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
    ("questions.json", "annotations.json"),
)
_VQA = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
_SOURCE = Source(
    "vqav2",
    "VQAv2, questions and annotations of val2014",
    (
        url_file(f"{_VQA}/v2_Questions_Val_mscoco.zip", 4 * MB),
        url_file(f"{_VQA}/v2_Annotations_Val_mscoco.zip", 11 * MB),
    ),
    page="https://visualqa.org/download.html",
)
FILES = BenchmarkFiles(_SOURCE, COCO_VAL2014, OFFICIAL[0])
SPEC = module_spec(
    "vqav2", "VQAv2",
    "Open questions about pictures, scored against ten people's answers; also under corruptions (VQAv2-C)",
    Headline("real", "accuracy", "VQAv2 accuracy"),
    notebook="61_vqav2", items=214_354, tokens=25, pictures=40_504, written=4,
    keys=f"question_id and answer; {ANSWER_FORMS}; {VISION_LOGS}",
    sources={"questions_file": FILES},
    paper=(  # UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/*@47f96a3
        *DIFFERENCES,
        ("paper asks 5,000 questions of 214,354, drawn with seed 42; standard all of them", "evaluate.py:581-601"),
        ("three text-only demonstrations with the first annotator's answer, and the bare question", "evaluate.py:820"),
        ('an answer with "yes" or "no" anywhere in it becomes "Yes" or "No": "snow" is "No"', "vqa_metric.py:575-584"),
        ('"Yes" is right only where annotators disagree: the official rules lower its case only there',
         "vqa_metric.py:411-416"),
        ("questions and annotations are paired by their places in the two lists, here by question_id",
         "eval_datasets.py:91-94"),
        ("an answer ends before the first Question, Answer, ### or </s> in it", "vqa_metric.py:575-584"),
        ("only the questions that have an answer are scored; the official code wants them all",
         "vqa_metric.py:382-443"),
    ),
)  # fmt: skip
