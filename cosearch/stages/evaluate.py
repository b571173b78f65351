"""Evaluate the three networks on the test images."""

from cosearch.evaluation import evaluation
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from hw.files import write_json


def run(run: RunFolder, progress: Progress) -> None:
    """Write ``evaluation.json``."""
    result = evaluation(run)
    for role, network in result["networks"].items():
        progress.log(f"  {role}: test accuracy {network['accuracy']:.2%}")
    write_json(run.evaluation, result)
