"""ETHICS (Hendrycks et al. 2021): everyday moral judgements in five subsets."""

from sbt.benchmarks.spec import LOGS, Headline, Spec
from sbt.data.registry import BenchmarkFiles, File, Mirror, Source

_HUB, _COMMIT = "hendrycks/ethics", "b8b47c589f8bee77175b8648e5497278b68da48a"
# The whole of the publishers' tar lies there, too, byte for byte: EleutherAI/gpt-neox, data/ethics.
_COPY = "https://raw.githubusercontent.com/EleutherAI/gpt-neox/49e7b2c7ac5ab67b89400dff7cc9d1cc40bc9422/data/ethics"
_FILES = (  # subset, the publishers' name of the file, bytes, SHA-256 of the publishers' file
    ("commonsense", "cm_test.csv", 3_180_898,
     "a004f51b8f863d85eb5575d86e8723897f850fcb7fc8de38c1f30105dfb13c4d"),
    ("commonsense", "cm_test_hard.csv", 3_898_031,
     "896f8929284fd7f847413e929e5191e2c56e4f1ab0e5ce22f059541cfa33d494"),
    ("deontology", "deontology_test.csv", 340_962,
     "f2889533d583d3aec2cd9ce6c3ed1bfef4ee3a5b08b3728cc11bd1824f629f65"),
    ("deontology", "deontology_test_hard.csv", 331_400,
     "11a156bb90a99a0f1c61580fcc2faa6ee1f90499978584052adec5b2ed46828e"),
    ("justice", "justice_test.csv", 286_706,
     "d7cc506a1055915d455a9244b26de573c75a760d416a8508a9420d41cbf40250"),
    ("justice", "justice_test_hard.csv", 219_461,
     "c5231c18642505fc3b3b3bef88c18034935c0d7746c87c81d2b9120bdff2fe84"),
    ("utilitarianism", "util_test.csv", 705_378,
     "e44bc24dd488696b64e515403efdefd36d89a6d71868b64a5261f035116ec850"),
    ("utilitarianism", "util_test_hard.csv", 646_473,
     "5b6cd41d9ee7ea621516f1cf271c7c2b3ac640cd0d7da91b8177aa3944c85861"),
    ("virtue", "virtue_test.csv", 446_409,
     "43368eb9787451fe8e3ab520a144ac71f32005f9b9f40b9c1fde93559f6f2793"),
    ("virtue", "virtue_test_hard.csv", 432_136,
     "d575dcc5573026ec6ec0e4042ce496c29b551463150b9b61c623f8a173f89dc4"),
)  # fmt: skip


SOURCE = Source(
    "ethics",
    "ETHICS, the files test and test_hard of its five subsets",
    tuple(
        File(name, size, (Mirror(_HUB, f"data/{subset}/{name.partition('_')[2]}", _COMMIT),
                          Mirror(url=f"{_COPY}/{subset}/{name}")), f"sha256:{digest}")
        for subset, name, size, digest in _FILES
    ),
    page="https://github.com/hendrycks/ethics",
)
_PAPER = (
    ("the split test only", "lm_eval/tasks/hendrycks_ethics.py@62ca184 (0.3.0)"),
    ("the excuse of deontology keeps the blanks at its end", "the same file: EthicsDeontology"),
)

SPEC = Spec(
    name="ethics",
    title="ETHICS",
    kind="text",
    table="Truthfulness and ethics, on pure text",
    headline=(
        Headline("mean test", "accuracy", "ETHICS accuracy", chance=0.5),
        Headline("mean test_hard", "accuracy", "ETHICS accuracy (hard)", chance=0.5),
    ),
    about="Five subsets of everyday moral judgements with two answers each; the mean of their accuracies",
    notebook="51_ethics",
    task="sbt.benchmarks.ethics.task",
    per_item="sbt.benchmarks.ethics.task:item_scores",
    one_answer="sbt.benchmarks.ethics.task:one_answer",
    score_files="sbt.benchmarks.ethics.task:score_files",
    answer_keys=f"index: row of the CSV, from 0; loglikelihoods: of the first and of the second option; {LOGS}",
    sources={"ethics_data": BenchmarkFiles(SOURCE)},
    protocols={"standard": (), "paper": _PAPER},
    items=38572,
    tokens=90,
)
