"""Search operations and multipliers: writes the genotype."""

from cosearch.distributed import current_world
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from cosearch.searching import Search
from cosearch.task import Task
from hw.files import write_json


def run(run: RunFolder, progress: Progress) -> None:
    """Write ``genotype.json``, and metrics and checkpoint under ``search/``."""
    world = current_world()
    genotype = Search(Task.of(run), world).run(run, progress)
    if world.is_first:
        write_json(run.genotype, genotype.to_json())
