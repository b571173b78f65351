"""Several genotypes of one finished search: its own, and cheaper and dearer ones of the same alphas
and betas.

A search has paid for its supernet once; genotypes of other energies cost no further training but
that of their judgement.
"""

from dataclasses import replace

from cosearch.budgeted_selection import Options, cheaper_genotypes, dearer_genotypes
from cosearch.checkpoint import load_checkpoint
from cosearch.config import Config
from cosearch.genotype import Genotype
from cosearch.run_folder import RunFolder
from cosearch.searching import Search
from cosearch.sweep.plan import Plan
from cosearch.task import Task, read_genotype
from hw.errors import InputError

__all__ = ["check_selections", "found_genotypes"]


def check_selections(plan: Plan, config: Config) -> None:
    """InputError where the plan takes several genotypes of a search that cannot select by
    energy.
    """
    searches = [member for member in plan.members if not member.is_baseline]
    several = max(plan.selections, 1 + plan.dearer)
    if several == 1 or not searches:
        return
    for member in searches:
        own = member.config(config)
        try:
            replace(own, search=replace(own.search, selection_budget=1.0))
        except InputError as error:
            raise InputError(
                f"selections must be 1 where no genotype is selected by energy, not "
                f"{several} ({error})"
            ) from None


def found_genotypes(run: RunFolder, task: Task, count: int, dearer: int = 0) -> list[Genotype]:
    """Genotypes of the search that is finished in `run`, each once: its own, at most `dearer` of
    more and more energy (`dearer_genotypes`), and at most `count` - 1 of less and less
    (`cheaper_genotypes`).
    """
    own = read_genotype(run)
    if count == 1 and not dearer:
        return [own]
    search = Search(task)
    search.restore(load_checkpoint(run.search_checkpoint), str(run.search_checkpoint))
    search.genotype()  # where the search collapsed, alphas and betas become those before
    energies = [task.library[name].cost.energy_fj for name in task.searched]
    exact = task.library[task.exact_name].cost.energy_fj
    options = Options.of(search.supernet, task.input_shape, energies, exact)
    most_skips = task.config.search.most_skips
    above = dearer_genotypes(search.supernet, options, own, dearer, most_skips)
    below = cheaper_genotypes(search.supernet, options, own, count, most_skips)
    return list(dict.fromkeys([own, *above, *below]))
