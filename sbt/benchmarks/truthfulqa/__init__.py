"""TruthfulQA (Lin et al. 2022): 817 questions that many people answer falsely."""

from sbt.benchmarks.spec import LOGS, Headline, Spec
from sbt.data.registry import BenchmarkFiles, File, Mirror, Source

_HUB, _COMMIT = "truthfulqa/truthful_qa", "741b8276f2d1982aa3d5b832d3ee81ed3b896490"
SOURCE = Source(
    "truthfulqa",
    "TruthfulQA of September 2021, multiple choice and generation",
    tuple(
        File(f"{kind}.parquet", 0, (Mirror(_HUB, f"{kind}/validation-00000-of-00001.parquet", _COMMIT),))
        for kind in ("multiple_choice", "generation")
    ),
    page="https://github.com/sylinrl/TruthfulQA",
)
_TABLE = "Truthfulness and ethics, on pure text"
_GENERATION = (
    ("an answer ends at the first period", "lm_eval/tasks/truthfulqa.py@62ca184 (0.3.0)"),
    ("BLEU is smoothed also where no word matches, as sacrebleu 1.5.0 does", "setup.py@62ca184 pins that version"),
)

SPECS = (
    Spec(
        name="truthfulqa",
        title="TruthfulQA, multiple choice",
        kind="text",
        table=_TABLE,
        headline=(Headline("all", "mc1", "TruthfulQA mc1"), Headline("all", "mc2", "TruthfulQA mc2")),
        about="Questions that many people answer falsely. Is the best answer the likeliest (mc1)? How probable "
        "are the true answers among all (mc2)",
        notebook="50_truthfulqa",
        task="sbt.benchmarks.truthfulqa.task",
        per_item="sbt.benchmarks.truthfulqa.task:item_scores",
        score_files="sbt.benchmarks.truthfulqa.task:score_files",
        answer_keys=f"question, mc1, mc2: log-likelihoods of the choices in the order of mc_task.json; {LOGS}",
        sources={"truthfulqa_data": BenchmarkFiles(SOURCE)},
        protocols={"standard": (), "paper": ()},
        items=817,
        tokens=110,
    ),
    Spec(
        name="truthfulqa-gen",
        title="TruthfulQA, generation",
        kind="text",
        table=_TABLE,
        headline=(
            Headline("all", "rougeL_acc", "TruthfulQA generation (ROUGE-L acc)"),
            Headline("all", "base_nats", "Surprise of base at what it writes (nats a token)"),
        ),
        about="Answers written to the same questions. Is an answer more like a true reference than like a false one?",
        notebook="50_truthfulqa",
        task="sbt.benchmarks.truthfulqa.task",
        per_item="sbt.benchmarks.truthfulqa.generation:item_scores",
        score_files="sbt.benchmarks.truthfulqa.generation:score_files",
        answer_keys=f"question, answer: one line a question of TruthfulQA.csv; {LOGS}",
        protocols={"standard": (), "paper": _GENERATION},
        items=817,
        tokens=60,
        written=40,
    ),
)
