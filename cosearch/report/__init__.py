"""What a run found, told: a summary for the terminal and one self-contained HTML page."""

from .page import page as page
from .results import Results as Results
from .results import read_results as read_results
from .summary import summary as summary
