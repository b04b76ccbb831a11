"""The parts of trainers and models by gradient. torch is imported when they are used.

GradientTrainer   a trainer with this training loop, an optimizer and a schedule
GradientOptions   the options of the loop; a trainer's config is a subclass
Parameters        the parameters for an optimizer, by role; MakeOptimizer is the function that makes
                  it
eager             an optimizer class of torch without torch's compiler, which is slow to import
constant, cosine, warmup_stable_decay   schedules of the learning rate; Schedule is their type
NextToken         the objective of the next token, a base for others
Batches, training_batches, validation_batches   the batches of objectives; token_losses the
                  cross-entropies of targets
GradientModel     adds decoding, saving and loading to a torch.nn.Module
ForwardDecoder    generates with any `forward(tokens, state)`
"""

from textgen.lazy import names_of as _names_of

__all__, __getattr__ = _names_of(__name__)
