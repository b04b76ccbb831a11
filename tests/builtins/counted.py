"""Small texts, n-gram models of them, and pipelines."""

import numpy as np

from textgen import Engine
from textgen.data import Dataset
from textgen.protocols import TrainingContext
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel

TEXT = "".join(Engine().read_corpus({"type": "story"}))[:20_000]
HELD_OUT = TEXT[-2_000:]
CONTEXT = TrainingContext(seed=0, device="cpu")


def count(tokens, vocab_size, order, *, trainer=None, **options):
    """An n-gram model of all but the last tenth of `tokens`."""
    model = NgramModel(order, vocab_size, **options)
    for _ in (trainer or CountTrainer()).train(model, dataset(tokens, vocab_size), CONTEXT):
        pass
    return model


def dataset(tokens, vocab_size):
    """A data set with the last tenth held out."""
    ids = np.asarray(tokens)
    cut = len(ids) - len(ids) // 10
    return Dataset(
        training=ids[:cut],
        validation=ids[cut:],
        vocab_size=vocab_size,
        window_length=1,
        window_stride=1,
    )


def pipeline(folder, model, trainer):
    """A pipeline on TEXT, its last tenth held out."""
    path = folder / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return {
        "device": "cpu",
        "corpus": {"type": "file", "path": str(path)},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 32},
        "model": model,
        "trainer": trainer,
        "generate": {"prompt": "", "max_new_tokens": 20},
        "observer": [],
    }
