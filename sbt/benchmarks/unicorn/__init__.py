"""Unicorn (Tu et al. 2023): pictures unlike the training's (OODCV-VQA, counterfactual too), drawings (Sketchy-VQA)."""

from sbt.benchmarks.common.protocol import UNICORN_DIFFERENCES
from sbt.benchmarks.spec import ANSWER_FORMS, Headline, module_spec
from sbt.data.registry import MB, BenchmarkFiles, File, Source, hub_file, url_file

OODCV, SKETCHY = ("oodcv-vqa", "oodcv-counterfactual"), ("sketchy-vqa", "sketchy-challenging")
TASKS = (*OODCV, *SKETCHY)
_CODE = "UCSC-VLAA/vllm-safety-benchmark@ef1aba1: safety_evaluations/ood_scenarios"
_METRIC, _SKETCHY = f"{_CODE}/oodcv_vqa_metric.py", f"{_CODE}/sketchy_metric.py"
_RULES = {
    "OODCV-VQA": (
        ("paper keeps one answer a picture, the last question's", f"{_CODE}/evaluation.py, lines 425-430"),
        ('paper looks for parts of words: "10" is also 1, "not" also no, "none" also 1', f"{_METRIC}, lines 247-249"),
        ('paper heeds the case: "Two" is no number, "NO" is no answer', f"{_METRIC}, lines 168-199"),
        ("paper does not know the digit 0: only none, no and zero say it", f"{_METRIC}, line 171"),
        ("paper reads past the first sentence, for the periods are gone before it is cut", f"{_METRIC}, line 236"),
        ("paper, counterfactual: commas are gone before the clauses are cut apart", f"{_METRIC}, lines 342-348, 304"),
        ('paper, counterfactual: "Not" and "None" at the start are No', f"{_METRIC}, line 298"),
        ('paper, counterfactual: the condition is cut off inside words ("different" at "if")', f"{_METRIC}, line 319"),
    ),
    "Sketchy-VQA": (
        ('paper wants the bare word: "No." and "Yes!" are neither', f"{_SKETCHY}, lines 14-21"),
        ("paper leaves answers that are neither out of accuracy and recall", f"{_SKETCHY}, lines 42-59"),
        ('paper takes every label but "No" for yes', f"{_SKETCHY}, lines 23-27"),
    ),
}
_PAGE = "https://github.com/UCSC-VLAA/vllm-safety-benchmark#datasets"
_QUESTIONS = Source(
    "unicorn",
    "UnicornBench, the questions of its four tasks",
    (
        hub_file(
            ("PahaII/vllm_safety_evaluation", "e67c71158bbf981dba3188c02075fb2c1745c755"),
            "safety_evaluation_benchmark_datasets.zip",
            251_930_888,
            "sha256:4823fe51288af2770d6aabfc11ba7b4a54f20e446773446211b99cc23cfdb377",
        ),
    ),
    page=_PAGE,
    note="research use only (CC BY-NC 4.0)",
)
_SKETCHES = Source(
    "sketches",
    "TU Berlin's line drawings: the pictures of Sketchy-VQA",
    (url_file("https://cybertron.cg.tu-berlin.de/eitz/projects/classifysketch/sketches_png.zip", 525 * MB),),
    page=_PAGE,
)
_OODCV = Source(
    "oodcv-images",
    "OOD-CV, the pictures of OODCV-VQA",
    (File("oodcv-images.zip", 0, ()),),
    page=_PAGE,
    note="on Google Drive, which hands out no large file without a browser: fetch the zip from the page by hand",
)
FILES = BenchmarkFiles(
    _QUESTIONS,
    {task: _OODCV if task in OODCV else _SKETCHES for task in TASKS},
    tuple(f"{task}.json" for task in TASKS),
)
SPEC = module_spec(
    "unicorn", "Unicorn",
    "Questions about pictures unlike the training's: odd textures and backgrounds, what-if, line drawings",
    Headline("oodcv-vqa", "accuracy", "OODCV-VQA accuracy"),
    Headline("sketchy-vqa", "accuracy", "Sketchy-VQA accuracy", chance=0.5),
    notebook="64_unicorn", tokens=30, written=4,
    keys=f"answer, one a question in their order; {ANSWER_FORMS}; in OODCV-VQA also an object by image path",
    sources={"unicorn_data": FILES},
    paper=(
        *UNICORN_DIFFERENCES,
        *((f"{name}: {rule}", source) for name, rules in _RULES.items() for rule, source in rules),
    ),
)  # fmt: skip
