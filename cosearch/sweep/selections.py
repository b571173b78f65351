"""Several genotypes of one finished search: its own, and cheaper ones of the same alphas and betas.

A search has paid for its supernet once; what energies it is cut down to costs no training.
"""

from cosearch.budgeted_selection import Options, genotypes_of_energies
from cosearch.checkpoint import load_checkpoint
from cosearch.genotype import Genotype
from cosearch.run_folder import RunFolder
from cosearch.searching import Search
from cosearch.task import Task, read_genotype

__all__ = ["found_genotypes"]


def found_genotypes(run: RunFolder, task: Task, count: int) -> list[Genotype]:
    """At most `count` genotypes of the search that is finished in `run`: first its own, then the
    likeliest of less and less energy (`genotypes_of_energies`).
    """
    own = read_genotype(run)
    if count == 1:
        return [own]
    search = Search(task)
    search.restore(load_checkpoint(run.search_checkpoint), str(run.search_checkpoint))
    search.genotype()  # of a search that collapsed, what was before counts
    energies = [task.library[name].cost.energy_fj for name in task.searched]
    exact = task.library[task.exact_name].cost.energy_fj
    options = Options.of(search.supernet, task.input_shape, energies, exact)
    cheaper = genotypes_of_energies(search.supernet, options, count, task.config.search.most_skips)
    return [own, *(one for one in cheaper[:count] if one != own)][:count]
