"""The contracts' statements, a sentence each with what helps, from contracts.md, which is a part
of the docs too.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

import attrs

_SECTION: Final = re.compile(
    r"^\((.+)\)=\n### .+\n\n\*\*(.+)\*\*\n\n((?:(?!\(|## ).*\n)+)", re.MULTILINE
)


@attrs.frozen
class Statement:
    """One thing that a contract asks.

    anchor     its name, and its section's in the docs
    sentence   what is asked
    advice     what helps where it is not so
    """

    anchor: str
    sentence: str
    advice: str

    @property
    def check(self) -> str:
        """The name of the method of a suite that checks it."""
        return self.anchor.replace("-", "_")


STATEMENTS: Final = {
    anchor: Statement(anchor, sentence, " ".join(advice.split()))
    for anchor, sentence, advice in _SECTION.findall(
        (resources.files("textgen.testing") / "contracts.md").read_text(encoding="utf-8")
    )
}
"""By anchor."""
