"""The options of the tokenizers."""

from __future__ import annotations

import attrs
from attrs.validators import ge

from textgen import option


@attrs.frozen
class CharConfig:
    """One token per character.

    Text is normalised in the order of the options. The vocabulary is `<unk>`, the sorted characters
    of the corpus, and `<end>` if the corpus consists of documents.
    """

    letters_only: bool = option(
        False, help="turn every run of characters other than A-Z and a-z into one space"
    )
    lower_case: bool = option(False, help="turn the text into lower case")
    min_frequency: int = option(
        1, help="characters that occur less often in the corpus become <unk>", validator=ge(1)
    )


@attrs.frozen
class BPEConfig:
    """Byte-level byte-pair encoding, learnt from the corpus: frequent words are one token, others a
    few.

    Every text can be encoded: the 256 bytes are the first tokens. Words are split as GPT-2 does,
    and tokenizer.json is in the format of the library tokenizers.
    """

    vocab_size: int = option(
        1024, help="tokens to learn at most, the 256 bytes included", validator=ge(256)
    )
