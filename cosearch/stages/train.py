"""Train the found network three times: with its multipliers, with the exact one, and in fp32."""

from cosearch.distributed import current_world
from cosearch.progress import Progress
from cosearch.run_folder import ROLES, RunFolder
from cosearch.task import Task, read_genotype
from cosearch.training import Training


def run(run: RunFolder, progress: Progress) -> None:
    """Write ``train/<role>.pt`` for each role, the same seed and schedule for all."""
    task, genotype = Task.of(run), read_genotype(run)
    for role in ROLES:
        Training(role, task, genotype, world=current_world()).run(run, progress)
