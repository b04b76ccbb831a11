"""Components that keep their contracts, and for each kind some that break one statement of it."""

from __future__ import annotations

from broken_components.cases import offered
from broken_components.commands import COMMANDS, commanded, good_command
from broken_components.corpora import CORPORA, GoodCorpus
from broken_components.models import MODELS, GoodModel
from broken_components.observers import OBSERVERS, GoodObserver
from broken_components.records import RECORDS
from broken_components.samplers import SAMPLERS, GoodSampler
from broken_components.tokenizers import TOKENIZERS, GoodTokenizer
from broken_components.trainers import TRAINERS, GoodTrainer

GOOD = {
    "corpus": offered(GoodCorpus),
    "tokenizer": offered(GoodTokenizer),
    "model": offered(GoodModel),
    "trainer": offered(GoodTrainer),
    "sampler": offered(GoodSampler),
    "observer": offered(GoodObserver),
    "command": commanded(good_command),
}
BROKEN = [*RECORDS, *CORPORA, *TOKENIZERS, *MODELS, *TRAINERS, *SAMPLERS, *OBSERVERS, *COMMANDS]
