"""What the contracts ask, a sentence each. docs/testing-plugins.md has a section for every one, under its anchor."""

from __future__ import annotations

from typing import Final

import attrs

PAGE: Final = "testing-plugins.html"


@attrs.frozen
class Statement:
    """One thing that a contract asks: the anchor of its section in the docs, and the sentence."""

    anchor: str
    sentence: str

    @property
    def link(self) -> str:
        """The page of the docs, and the place in it."""
        return f"{PAGE}#{self.anchor}"


COMPONENT_RECORD = Statement(
    "component-record",
    "A component is a valid record whose config is a frozen attrs class with a docstring and a help phrase per option.",
)
COMPONENT_IMPORT = Statement(
    "component-import",
    "Importing a plugin's module takes no time worth noticing, prints nothing, and loads neither torch nor NumPy.",
)
COMPONENT_OPTIONS = Statement(
    "component-options", "Options written to a pipeline with every default filled in give the same configuration again."
)
COMPONENT_BUILD = Statement(
    "component-build",
    "Building a component prints nothing and leaves global random states, the environment and warnings as they were.",
)

CORPUS_PIECES = Statement("corpus-pieces", "read() yields str pieces of at most 16 million characters.")
CORPUS_TEXT = Statement("corpus-text", "A corpus gives some text, and all of it is text that UTF-8 can hold.")
CORPUS_AGAIN = Statement("corpus-again", "read() gives the same text each time, from a corpus built anew too.")
CORPUS_READERS = Statement("corpus-readers", "Readers of one corpus do not disturb each other, in other threads too.")
CORPUS_ERRORS = Statement("corpus-errors", "A text that cannot be read is a CorpusError that says why.")

TOKENIZER_FIT = Statement(
    "tokenizer-fit", "fit() reads all of its pieces once, and learns the same wherever the text is cut into them."
)
TOKENIZER_VOCABULARY = Statement(
    "tokenizer-vocabulary",
    "vocab_size is a positive int after fit(), a ValueError or that same int before, and unknown_id is an id or None.",
)
TOKENIZER_DETERMINISTIC = Statement("tokenizer-deterministic", "The same corpus gives the same vocabulary and ids.")
TOKENIZER_IDS = Statement("tokenizer-ids", "encode() gives integers (T,) from 0 to vocab_size - 1.")
TOKENIZER_ANY_TEXT = Statement(
    "tokenizer-any-text", "Any text can be encoded, the empty one too, or is refused with an error of textgen."
)
TOKENIZER_ROUND_TRIP = Statement("tokenizer-round-trip", "What ids decode to encodes to the same ids again.")
TOKENIZER_DECODE = Statement("tokenizer-decode", "decode() takes integers of any dtype, writes into none, gives a str.")
TOKENIZER_PIECES = Statement(
    "tokenizer-pieces", "encode_pieces() gives together what encode() gives for the joined text, wherever it is cut."
)
TOKENIZER_STREAM = Statement(
    "tokenizer-stream", "The pieces of an incremental decoder, joined, are what decode() gives, wherever ids are cut."
)
TOKENIZER_SAVED = Statement(
    "tokenizer-saved", "to_dict() is JSON values from which from_dict() of an unfitted tokenizer makes the same again."
)
TOKENIZER_THREADS = Statement("tokenizer-threads", "Threads that share a tokenizer get what each would get alone.")

MODEL_SHAPE = Statement("model-shape", "extend() gives logits (B, V), score() gives (B, T, V), and batch_size is B.")
MODEL_DTYPE = Statement("model-dtype", "Logits are float32 or float64.")
MODEL_FINITE = Statement("model-finite", "Logits hold no NaN and no +inf, and leave some token possible.")
MODEL_DETERMINISTIC = Statement("model-deterministic", "A decoder gives the same logits for the same tokens each time.")
MODEL_INPUT = Statement("model-input", "A decoder writes nothing into the tokens it is fed, which may be read-only.")
MODEL_OUTPUT = Statement("model-output", "The caller may write into logits without changing what comes after.")
MODEL_STEPWISE = Statement(
    "model-stepwise", "Tokens fed at once, one by one, or to score() give the same logits at each place."
)
MODEL_GREEDY = Statement(
    "model-greedy", "continue_greedily() gives the likeliest tokens, and leaves the state that extend() would have."
)
MODEL_ROWS = Statement("model-rows", "What a row of a batch gives depends on its own tokens alone.")
MODEL_STATE_FORM = Statement(
    "model-state-form", "read_state() gives one NumPy array or more, each with the batch first, that can be saved."
)
MODEL_STATE = Statement("model-state", "A decoder that takes over a state goes on exactly as the one it came from.")
MODEL_STATE_ROWS = Statement(
    "model-state-rows", "Picking rows of a state forks or drops sequences, and sets the batch size."
)
MODEL_STATE_COPY = Statement("model-state-copy", "A state that was read or written is a copy: decoding changes it not.")
MODEL_DECODERS = Statement(
    "model-decoders", "Every decoder begins at the start state and does not disturb the others, in other threads too."
)
MODEL_LENGTH = Statement("model-length", "A decoder goes on for any number of tokens.")
MODEL_SAVED = Statement("model-saved", "tensors() of a model, loaded into one built anew, make the same model.")
MODEL_REFUSES = Statement("model-refuses", "load_tensors() raises ValueError for weights that are not its own.")
MODEL_SEED = Statement("model-seed", "The same seed gives the same initial weights.")
MODEL_FORWARD = Statement(
    "model-forward", "forward() gives logits (B, T, V), those of the decoder, and a flat tuple as state to go on from."
)
MODEL_DROPOUT = Statement(
    "model-dropout", "What a training step draws depends on set_dropout_seed() alone, not on torch's global generator."
)

TRAINER_EVENTS = Statement("trainer-events", "A trainer yields StepDone and Evaluated, and nothing else.")
TRAINER_STEPS = Statement("trainer-steps", "Steps count from 1 to `steps`, an epoch from 1, and losses are finite.")
TRAINER_EVALUATES = Statement(
    "trainer-evaluates", "Training ends with an evaluation, whose validation loss is None where nothing is held out."
)
TRAINER_LEARNS = Statement("trainer-learns", "A trained model predicts its training text better than before.")
TRAINER_DETERMINISTIC = Statement("trainer-deterministic", "The same seed gives the same events and weights.")
TRAINER_STATE_FORM = Statement(
    "trainer-state-form", "state() is a TrainerState of NumPy arrays by name and JSON values that can be saved."
)
TRAINER_RESUMES = Statement(
    "trainer-resumes", "Training goes on exactly from the saved state of any place where it yielded."
)
TRAINER_FINISHED = Statement("trainer-finished", "Training that goes on from its end does no further step.")
TRAINER_DATA = Statement("trainer-data", "A trainer writes nothing into the data, which is read-only.")
TRAINER_QUIET = Statement("trainer-quiet", "A trainer prints nothing and leaves global random states alone.")
TRAINER_REFUSES = Statement("trainer-refuses", "A model that it cannot train is an error of textgen that says so.")

SAMPLER_SHAPE = Statement("sampler-shape", "A sampler gives logits of the shape (B, V) that came in.")
SAMPLER_DTYPE = Statement("sampler-dtype", "A sampler gives logits of the dtype and array library that came in.")
SAMPLER_FINITE = Statement("sampler-finite", "A sampler gives no NaN and no +inf.")
SAMPLER_POSSIBLE = Statement("sampler-possible", "A sampler leaves at least one token possible in every row.")
SAMPLER_FORBIDDEN = Statement("sampler-forbidden", "What an earlier sampler has forbidden stays forbidden.")
SAMPLER_INPUT = Statement("sampler-input", "A sampler writes nothing into the logits that came in.")
SAMPLER_ROWS = Statement("sampler-rows", "What a row gives does not depend on the other rows.")
SAMPLER_DETERMINISTIC = Statement(
    "sampler-deterministic", "A sampler gives the same for the same logits and history, however often it was called."
)
SAMPLER_HISTORY = Statement(
    "sampler-history", "A sampler reads of the history only what its attribute `history` announces."
)
SAMPLER_PROMISE = Statement(
    "sampler-promise", "A sampler with deterministic = True leaves the most likely token alone, the first of equals."
)
SAMPLER_TORCH = Statement("sampler-torch", "A sampler does with torch tensors what it does with NumPy arrays.")
SAMPLER_THREADS = Statement("sampler-threads", "Threads that share a sampler get what each would get alone.")

OBSERVER_RUN = Statement("observer-run", "An observer takes every event of a run, with nothing held out too.")
OBSERVER_UNKNOWN = Statement("observer-unknown", "An observer ignores event classes that it does not know.")
OBSERVER_RESUMED = Statement(
    "observer-resumed", "An observer takes a run that goes on from a checkpoint, with its files there or not."
)
OBSERVER_FAILED = Statement("observer-failed", "An observer takes a run that ends before its first step.")
OBSERVER_CONSOLE = Statement("observer-console", "An observer writes to the console it is given, or nowhere.")
OBSERVER_FILES = Statement(
    "observer-files", "An observer writes into the run directory alone, and leaves the files of the engine alone."
)
OBSERVER_APART = Statement("observer-apart", "Observers of different runs do not disturb each other.")

COMMAND_BUILD = Statement("command-build", "A command's config has no required option, and build() gives a command.")
COMMAND_HELP = Statement("command-help", "A command says what it does: --help exits with 0 and begins with a sentence.")
COMMAND_LIGHT = Statement(
    "command-light", "Building a command loads neither torch nor NumPy, since `textgen --help` builds all of them."
)
COMMAND_USAGE = Statement("command-usage", "An option that there is not is refused with exit code 2.")
COMMAND_FILES = Statement("command-files", "Building a command and showing its help write no file.")
COMMAND_AGAIN = Statement("command-again", "Building a command again gives a command with the same help.")
COMMAND_RUNS = Statement("command-runs", "A command that is given valid arguments exits with 0.")

STATEMENTS: Final = tuple(value for value in dict(globals()).values() if isinstance(value, Statement))
