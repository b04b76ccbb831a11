# The public names: a type checker reads them here, and textgen.lazy where each is imported from.

from textgen.runs.finishing import save_run as save_run
from textgen.runs.loading import build_generator as build_generator
from textgen.runs.offered import offered_run as offered_run
from textgen.runs.offered import run_of as run_of
from textgen.runs.starting import resolve as resolve
from textgen.runs.summary import read_metrics as read_metrics
from textgen.runs.vocabulary import for_vocabulary as for_vocabulary

__all__: list[str]
