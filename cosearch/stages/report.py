"""The stage ``report``: a summary on the terminal and ``report.html`` in the run folder."""

from cosearch.progress import Progress
from cosearch.report import page, read_results, summary
from cosearch.run_folder import RunFolder
from hw.files import write_text


def run(run_folder: RunFolder, progress: Progress) -> None:
    """Read the results of the stages before, write the page, show the summary."""
    results = read_results(run_folder)
    write_text(run_folder.report, page(results))
    for line in summary(results).splitlines():
        progress.log(line)
