"""MM-Vet (Yu et al. 2023): 218 questions about pictures, each answer graded 0 to 1 against the truth."""

from sbt.benchmarks.spec import Headline, judged_spec
from sbt.data.registry import BenchmarkFiles, Source, url_file

_SOURCE = Source(
    "mmvet", "MM-Vet: questions, answers and pictures",
    (url_file("https://github.com/yuweihao/MM-Vet/releases/download/v1/mm-vet.zip", 0),),
    page="https://github.com/yuweihao/MM-Vet", note="data: CC BY-NC 4.0",
)  # fmt: skip
FILES = BenchmarkFiles(_SOURCE, None, ("mm-vet.json",), beside="images")
SPEC = judged_spec(
    "mmvet", "MM-Vet", "vision",
    "Questions that take several abilities at once, from reading to arithmetic; a judge grades by the truth",
    Headline("all", "score", "MM-Vet (of 100)"),
    notebook="72_visual_chat", items=218, tokens=700, pictures=200, written=512,
    raw="the grade file of mm-vet_evaluator.py", sources={"mmvet_data": FILES},
    paper=(
        ("a verdict that is no number is asked for again, five times, each time 0.5 hotter; here it counts 0 at once",
         "yuweihao/MM-Vet: mm-vet_evaluator.py@acde843"),
    ),
)  # fmt: skip
