"""MME (Fu et al. 2023): two yes/no questions a picture, 14 tasks of perception and cognition."""

from sbt.benchmarks.common.protocol import DIFFERENCES
from sbt.benchmarks.spec import VISION_LOGS, Headline, module_spec
from sbt.data.registry import MB, BenchmarkFiles, Source, hub_file

_AUTHORS = "UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/mme_metric.py@47f96a3"
_SOURCE = Source(
    "mme",
    "MME, questions and pictures",
    (hub_file(("darkyarding/MME", None), "MME_Benchmark_release_version.zip", 200 * MB),),
    page="https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation",
    note="research use only. The publishers give out the pictures of landmark and artwork apart: on_bad='skip' "
    "leaves out those that are not there",
)
FILES = BenchmarkFiles(_SOURCE, _SOURCE, beside="existence")
SPEC = module_spec(
    "mme", "MME",
    "Two yes/no questions a picture, in 14 tasks of perception and cognition",
    Headline("perception", "score", "MME perception (200 a task)"),
    Headline("cognition", "score", "MME cognition (200 a task)"),
    notebook="60_mme", items=2_374, tokens=40, pictures=1_187, written=3,
    keys=f"a folder of TASK.txt: image, question, label, response, with tabs between; {VISION_LOGS}",
    sources={"mme_data": FILES},
    paper=(
        *DIFFERENCES,
        ("paper leaves out landmark and artwork: perception is at most 1600, not 2000", f"{_AUTHORS}, lines 13-17"),
        ('paper strips the answer before it takes four characters: "  yes" is yes, not other',
         f"{_AUTHORS}, line 121"),
        ("paper counts a line without a response as other; in standard it is an error", f"{_AUTHORS}, lines 114-118"),
        ('paper strips the label; in standard "yes " is an error', f"{_AUTHORS}, line 120"),
    ),
)  # fmt: skip
