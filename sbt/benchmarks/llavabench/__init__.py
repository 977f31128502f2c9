"""LLaVA-Bench in the wild (Liu et al. 2023): sixty questions about 24 pictures, beside GPT-4's answers."""

from sbt.benchmarks.spec import Headline, judged_spec
from sbt.data.registry import BenchmarkFiles, Source, hub_file

_HUB = ("liuhaotian/llava-bench-in-the-wild", None)
_NAMES = ("questions.jsonl", "context.jsonl", "answers_gpt4.jsonl", *(f"images/{n:03}.jpg" for n in range(1, 25)))
_SOURCE = Source(
    "llavabench", "LLaVA-Bench in the wild: questions, captions, GPT-4's answers, pictures",
    tuple(hub_file(_HUB, name, 0) for name in _NAMES), page="https://github.com/haotian-liu/LLaVA",
)  # fmt: skip
FILES = BenchmarkFiles(_SOURCE, None, tuple(file.name for file in _SOURCE.files))
SPEC = judged_spec(
    "llavabench", "LLaVA-Bench in the wild", "vision",
    "Questions about pictures of many kinds; a judge rates the answer beside one that GPT-4 gave from a caption",
    Headline("all", "relative_score", "LLaVA-Bench (of the reference's 100)"),
    notebook="72_visual_chat", items=60, tokens=700, pictures=24, written=1024, raw="LLaVA's review files",
    sources={"llavabench_data": FILES},
    paper=(
        ("the reference's answer is always shown first; here in both orders",
         "haotian-liu/LLaVA: llava/eval/eval_gpt_review_bench.py@c121f04"),
    ),
)  # fmt: skip
