# The public names: a type checker reads them here, and textgen.lazy where each is imported from.

from textgen.pipeline.options import GeneralOptions as GeneralOptions
from textgen.pipeline.raw_pipeline import inline_toml as inline_toml

__all__: list[str]
