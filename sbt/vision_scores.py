"""Ask every arm that can see the same questions: about the right picture, about another one, and about none.

answers, conversations = vision_scores.ask(arms, prompts, pictures, folder, run.path("scratch/answers"))
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sbt import generation, models
from sbt.benchmarks import controls

Told = dict[tuple[str, str], list[str]]


def ask(
    references: Mapping[str, str],
    prompts: Sequence[str],
    pictures: Sequence[str],
    folder: Path,
    caches: Path,
    *,
    conditions: Sequence[str] = controls.CONDITIONS,
    seed: int = 0,
    batch_size: int = 64,
    max_new_tokens: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Told, dict[str, str | None]]:
    """(answers by arm and condition, in the order of the prompts; each arm's conversation template).

    `pictures` are the file names in `folder`, one a prompt. A question that is asked twice about one picture is
    answered once. `caches` keeps finished answers.
    """
    answers: Told = {}
    conversations = {}
    distinct = list(dict.fromkeys(zip(pictures, prompts, strict=True)))
    for name, reference in references.items():
        arm = models.load_arm(reference)
        conversations[name] = arm.conversation
        for condition in conditions:
            shown = controls.shown(folder, list(pictures), condition, seed)
            asked = [{"id": f"{image}|{text}", "image": shown[image], "text": text} for image, text in distinct]
            size = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "progress": progress}
            told = generation.generate(arm, asked, cache=caches / f"{name}-{condition}.jsonl", **size)
            known = dict(zip(distinct, told, strict=True))
            answers[name, condition] = [known[pair] for pair in zip(pictures, prompts, strict=True)]
    return answers, conversations
