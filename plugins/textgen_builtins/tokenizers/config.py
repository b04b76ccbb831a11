"""The options of the character tokenizer."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import ge

from textgen import option


@attrs.frozen
class CharConfig:
    """One token per character.

    Normalisation comes in the order of the options. The vocabulary is `<unk>` and the characters of the corpus, sorted.
    """

    unicode_form: Literal["none", "NFC", "NFD", "NFKC", "NFKD"] = option(
        "none", help="Unicode normalisation form, so that what looks alike is spelt alike"
    )
    letters_only: bool = option(False, help="turn every run of characters other than A-Z and a-z into one space")
    lower_case: bool = option(False, help="turn capitals into small letters")
    min_frequency: int = option(1, help="characters seen less often in the corpus become <unk>", validator=ge(1))
