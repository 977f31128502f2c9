"""MMBench (Liu et al. 2023): questions with options, right only if they are right in every order of the options."""

from sbt.benchmarks.spec import ANSWER_FORMS, Headline, module_spec
from sbt.data.registry import BenchmarkFiles, Source, url_file

_SOURCE = Source(
    "mmbench", "MMBench, dev of July 2023: 1,164 questions in 4,329 rows, pictures inside",
    (url_file("https://download.openmmlab.com/mmclassification/datasets/mmbench/mmbench_dev_20230712.tsv", 0),),
    page="https://github.com/open-compass/MMBench",
)  # fmt: skip
FILES = BenchmarkFiles(_SOURCE, None, ("mmbench_dev_20230712.tsv",))
SPEC = module_spec(
    "mmbench", "MMBench", "Questions about pictures with up to four options, each asked in every order of its options",
    Headline("all", "accuracy", "MMBench (of 100)"),
    notebook="72_visual_chat", items=4_329, tokens=80, pictures=1_164, written=4,
    keys=f"question_id, the row's index, and answer, a letter or an option; {ANSWER_FORMS}",
    sources={"mmbench_data": FILES},
    paper=(
        ("answers that name no letter and no option are given to ChatGPT to match; here they are wrong, and counted",
         "open-compass/VLMEvalKit: vlmeval/dataset/utils/multiple_choice.py"),
    ),
)  # fmt: skip
