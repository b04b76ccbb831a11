# The public names: a type checker reads them here, and textgen.lazy where each is imported from.

from textgen.runs.loading import load_generator as load_generator
from textgen.runs.record import save_run as save_run
from textgen.runs.starting import offered_run as offered_run
from textgen.runs.starting import resolve as resolve
from textgen.runs.starting import run_of as run_of
from textgen.runs.stored import read_metrics as read_metrics
from textgen.runs.vocabulary import for_vocabulary as for_vocabulary

__all__: list[str]
