"""AlpacaEval 1.0 (Li et al. 2023): how often a judge prefers an answer to that of text-davinci-003."""

from pathlib import Path

from sbt.benchmarks.common import released
from sbt.benchmarks.spec import Headline, judged_spec
from sbt.data.registry import BenchmarkFiles, Source, url_file

_SOURCE = Source(
    "alpacaeval",
    "AlpacaEval: 805 instructions with text-davinci-003's answers",
    (
        url_file(
            "https://raw.githubusercontent.com/tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20"
            "/results/text_davinci_003/model_outputs.json",
            474_865,
            "sha256:af0bc112f08c88bf589bbfe6fc1036806d0a0f6fec9c4d5a4db860f5afe73b4b",
        ),
    ),
    page="https://github.com/tatsu-lab/alpaca_eval",
)
FILES = BenchmarkFiles(_SOURCE, None, ("model_outputs.json",))
_FOLDER, _HERE = "llava/eval/data/alpaca_eval/model_answer", Path(__file__)
ANSWERS = released("alpacaeval", "AlpacaEval: answers of mm-DPO's arms", _FOLDER, _HERE.with_name("released.yaml"))
VERDICTS = released(
    "alpacaeval-verdicts", "AlpacaEval: GPT-4's verdicts on mm-DPO's arms", _FOLDER, _HERE.with_name("verdicts.yaml")
)
SPEC = judged_spec(
    "alpacaeval", "AlpacaEval 1.0", "text",
    "Instructions of many kinds; a judge says which of two answers is better, the arm's or a reference's",
    Headline("all", "win_rate", "AlpacaEval win rate (of 100)"),
    notebook="71_instruction_following", items=805, tokens=400, written=1024,
    raw="the annotations.json of alpaca_eval",
    sources={"alpacaeval_data": FILES, "alpacaeval_answers": ANSWERS, "alpacaeval_verdicts": VERDICTS},
    paper=(
        ("each question is judged in one order, drawn by its text; here in both",
         "tatsu-lab/alpaca_eval: src/alpaca_eval/processors.py@cd543a1"),
    ),
)  # fmt: skip
