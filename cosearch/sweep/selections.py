"""Several genotypes of one finished search: its own, and cheaper ones of the same alphas and betas.

A search has paid for its supernet once; genotypes of other energies cost no further training but
that of their judgement.
"""

from dataclasses import replace

from cosearch.budgeted_selection import Options, cheaper_genotypes
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
    if plan.selections == 1 or not searches:
        return
    for member in searches:
        own = member.config(config)
        try:
            replace(own, search=replace(own.search, selection_budget=1.0))
        except InputError as error:
            raise InputError(
                f"selections must be 1 where no genotype is selected by energy, not "
                f"{plan.selections} ({error})"
            ) from None


def found_genotypes(run: RunFolder, task: Task, count: int) -> list[Genotype]:
    """At most `count` genotypes of the search that is finished in `run`: first its own, then the
    likeliest of less and less energy (`cheaper_genotypes`).
    """
    own = read_genotype(run)
    if count == 1:
        return [own]
    search = Search(task)
    search.restore(load_checkpoint(run.search_checkpoint), str(run.search_checkpoint))
    search.genotype()  # where the search collapsed, alphas and betas become those before
    energies = [task.library[name].cost.energy_fj for name in task.searched]
    exact = task.library[task.exact_name].cost.energy_fj
    options = Options.of(search.supernet, task.input_shape, energies, exact)
    most_skips = task.config.search.most_skips
    return cheaper_genotypes(search.supernet, options, own, count, most_skips)
