"""What a run needs of episodes of several tasks, and what is worth knowing of them."""

from collections.abc import Iterator

from phaseb.config.data import COLLECTED
from phaseb.config.root import Config
from phaseb.episodes.inventory import listed
from phaseb.episodes.splits import MIN_OF_TASK, MIN_TRAIN
from phaseb.episodes.tasks import much_alike, short
from phaseb.errors import ConfigError
from phaseb.pipeline.dataset_stats import SPLITS, DataFacts
from phaseb.pipeline.requirement import Requirement


def task_requirements(config: Config, facts: DataFacts) -> Iterator[Requirement]:
    """Enough training episodes of every task, and an encoder that sees the task; nothing without a condition."""
    if not facts.tasks:
        return
    few = {task: counts["train"] for task, counts in facts.tasks.items() if counts["train"] < MIN_TRAIN}
    yield Requirement(
        "collect",
        "episodes.num_train" if config.episodes.source in COLLECTED else "episodes.path",
        f"{MIN_TRAIN} training episodes of each of {len(facts.tasks)} tasks",
        listed([f"{count} of '{short(task)}'" for task, count in few.items()]) or "enough of each",
        "record more of these, leave their episodes out, or give them another task's name",
        not few,
    )
    yield Requirement(
        "encode",
        "latents.observation",
        "a state, which says which task an episode has",
        config.latents.observation,
        "set latents.observation=auto",
        config.latents.observation != "frames",
        ConfigError,
    )


def task_notes(facts: DataFacts) -> Iterator[str]:
    """The tasks and their episodes, and those tasks that have none held out."""
    if not facts.tasks:
        return
    shown = [f"{short(task)} ({sum(counts.values())})" for task, counts in facts.tasks.items()]
    yield f"the state says which of {len(facts.tasks)} tasks an episode has (episodes of each: {listed(shown)})"
    for split in SPLITS[1:]:
        missing = [task for task, counts in facts.tasks.items() if not counts[split]]
        if missing:
            yield f"no {split} episode has the task {listed(missing)}: each needs {MIN_OF_TASK} episodes or more"
    for pair in much_alike(list(facts.tasks)):
        one, other = (short(ascii(task)) for task in pair)
        yield f"the tasks {one} and {other} are much alike: if they are one, give them one name before the import"
