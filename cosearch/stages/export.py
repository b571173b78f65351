"""Write and verify the bundle of the found network: ONNX, Verilog, tables, golden vectors."""

from cosearch.evaluation import integer_network
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from cosearch.task import Task, read_genotype
from export import Bundle, write_bundle


def run(run: RunFolder, progress: Progress) -> None:
    """Write ``bundle/``; the golden input is the test images."""
    task, genotype = Task.of(run), read_genotype(run)
    bundle = Bundle(
        name=run.config.name,
        network=integer_network("approximate", task, genotype, run),
        entries=tuple(task.library),
        images=task.data.splits["test"].images,
        notes={
            "seed": run.config.seed,
            "data": run.config.data.name,
            "genotype": genotype.to_json(),
            **({"assignment": task.assignment.to_json()} if task.assignment else {}),
            "energy": "multiplications only, padding included",
            "versions": dict(run.record["versions"]),
        },
    )
    progress.log(f"  verified: {write_bundle(bundle, run.bundle)}")
