# The public names: a type checker reads them here, and textgen.lazy where each is imported from.

from textgen.gradient.batches import Batches as Batches
from textgen.gradient.batches import training_batches as training_batches
from textgen.gradient.batches import validation_batches as validation_batches
from textgen.gradient.decoder import ForwardDecoder as ForwardDecoder
from textgen.gradient.loop import GradientTrainer as GradientTrainer
from textgen.gradient.model import GradientModel as GradientModel
from textgen.gradient.objectives import NextToken as NextToken
from textgen.gradient.objectives import token_losses as token_losses
from textgen.gradient.optimization import MakeOptimizer as MakeOptimizer
from textgen.gradient.optimization import Parameters as Parameters
from textgen.gradient.optimization import eager as eager
from textgen.gradient.options import GradientOptions as GradientOptions
from textgen.gradient.options import Length as Length
from textgen.gradient.schedules import Schedule as Schedule
from textgen.gradient.schedules import constant as constant
from textgen.gradient.schedules import cosine as cosine
from textgen.gradient.schedules import warmup_stable_decay as warmup_stable_decay

__all__: list[str]
