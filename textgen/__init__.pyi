# The public names: a type checker reads them here, and textgen.lazy where each is imported from.

from textgen.documents import DOCUMENT_END as DOCUMENT_END
from textgen.engine import Engine as Engine
from textgen.engine import Run as Run
from textgen.engine import load as load
from textgen.engine import run as run
from textgen.engine import train as train
from textgen.errors import ContractError as ContractError
from textgen.errors import CorpusError as CorpusError
from textgen.errors import CorruptFileError as CorruptFileError
from textgen.errors import DeviceError as DeviceError
from textgen.errors import Fault as Fault
from textgen.errors import Interrupted as Interrupted
from textgen.errors import PipelineError as PipelineError
from textgen.errors import PluginError as PluginError
from textgen.errors import PluginWarning as PluginWarning
from textgen.errors import PromptError as PromptError
from textgen.errors import RunError as RunError
from textgen.errors import RunLockedError as RunLockedError
from textgen.errors import RunMismatchError as RunMismatchError
from textgen.errors import TextgenError as TextgenError
from textgen.errors import TrainingError as TrainingError
from textgen.errors import UsageError as UsageError
from textgen.generation.generator import Generator as Generator
from textgen.generation.keywords import RequestKeywords as RequestKeywords
from textgen.generation.scheduling.async_streams import AsyncTextStream as AsyncTextStream
from textgen.generation.scheduling.streams import TextStream as TextStream
from textgen.generation.scoring import TextScore as TextScore
from textgen.generation.scoring import TokenScores as TokenScores
from textgen.generation.texts.prompts import EncodedPrompt as EncodedPrompt
from textgen.generation.texts.results import Generation as Generation
from textgen.generation.texts.results import Generations as Generations
from textgen.generation.texts.results import GenerationState as GenerationState
from textgen.generation.texts.results import RankedText as RankedText
from textgen.generation.texts.results import TokenLogprobs as TokenLogprobs
from textgen.novelty import CopyFinder as CopyFinder
from textgen.novelty import CopyReport as CopyReport
from textgen.pipeline.options import RequestOptions as RequestOptions
from textgen.pipeline.pipeline import Pipeline as Pipeline
from textgen.plugin.component import Address as Address
from textgen.plugin.component import BuildContext as BuildContext
from textgen.plugin.component import Component as Component
from textgen.plugin.component import NoOptions as NoOptions
from textgen.plugin.component import RegisteredComponent as RegisteredComponent
from textgen.plugin.component import option as option
from textgen.plugin.configured import ConfiguredComponent as ConfiguredComponent
from textgen.plugin.hookspecs import hookimpl as hookimpl
from textgen.plugin.registry import PluginSet as PluginSet
from textgen.runs.stored import RunSummary as RunSummary
from textgen.runs.stored import summarize as summarize
from textgen.runs.stored import verify as verify

__all__: list[str]
__version__: str
