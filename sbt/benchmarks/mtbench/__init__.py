"""MT-Bench (Zheng et al. 2023): eighty questions of two turns, each answer rated 1 to 10 by a judge."""

from pathlib import Path

from sbt.benchmarks.common import released
from sbt.benchmarks.spec import Headline, judged_spec
from sbt.data.registry import BenchmarkFiles, Source, url_file

_FASTCHAT = (
    "https://raw.githubusercontent.com/lm-sys/FastChat/0e6d3e4beaab66f4d3f93db72541a4abab8af28d"
    "/fastchat/llm_judge/data/mt_bench"
)
_SOURCE = Source(
    "mtbench",
    "MT-Bench: 80 questions, and GPT-4's answers to the 30 that are judged by a reference",
    (
        url_file(f"{_FASTCHAT}/question.jsonl", 48_929,
                 "sha256:119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7"),
        url_file(f"{_FASTCHAT}/reference_answer/gpt-4.jsonl", 51_109,
                 "sha256:f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f"),
    ),
    page="https://github.com/lm-sys/FastChat",
)  # fmt: skip
FILES = BenchmarkFiles(_SOURCE, None, tuple(file.name for file in _SOURCE.files))
ANSWERS = released(
    "mtbench", "MT-Bench: answers of mm-DPO's arms", "llava/eval/data/mt_bench/model_answer",
    Path(__file__).with_name("released.yaml"),
)  # fmt: skip
SPEC = judged_spec(
    "mtbench", "MT-Bench", "text",
    "Conversations of two turns, about writing, reasoning, coding and more; a judge rates each answer",
    Headline("all", "score", "MT-Bench (1 to 10)"),
    Headline("all, random", "score", "MT-Bench beside a random picture"),
    notebook="71_instruction_following", items=80, tokens=1200, written=2 * 1024,
    raw="FastChat's gpt-4_single.jsonl", sources={"mtbench_data": FILES, "mtbench_answers": ANSWERS},
    paper=(
        ("with a picture: the prompt's <image> is tokenised as text, and no picture reaches the model",
         "findalexli/mllm-dpo: llava/eval/gen_model_answer.py@67f651c"),
    ),
)  # fmt: skip
