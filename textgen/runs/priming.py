"""What texts begin after: the tokens before a document or a paragraph of the training text."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from textgen.documents import end_id
from textgen.protocols import Ids, Tokenizer

_PRIMING: Final = 8  # tokens; more did not change what follows
# Tokens on each side of the middle, among which the end of a document is sought, or a paragraph.
_SOUGHT: Final = 1 << 20
_AROUND: Final = 4096
_PARAGRAPHS: Final = (r"\n\n(?=\S)", r"(?<=\S)\n(?=\S)", r"\n\s+(?=\S)")  # what stands before one
_LINES: Final = 20  # of a paragraph; where empty lines are rarer, each line is one


def priming_ids(tokenizer: Tokenizer, tokens: Ids) -> list[int]:
    """The ids that texts begin after: in training tokens (N,), the last ones before a text starts,
    somewhere in the middle.

    To a recurrent network the start state is in the middle of a text. A text starts after the end
    of a document; where there is one text, after a paragraph. No ids if it has no line break.
    """
    middle = len(tokens) // 2
    first = max(1, middle - _SOUGHT)
    starts: Ids = np.flatnonzero(tokens[first : middle + _SOUGHT] == end_id(tokenizer)) + first + 1
    if not len(starts):
        starts = _paragraphs(tokenizer, tokens)
    start = starts[len(starts) // 2] if len(starts) else 0
    ids: list[int] = tokens[max(0, start - _PRIMING) : start].tolist()
    return ids


def _paragraphs(tokenizer: Tokenizer, tokens: Ids) -> Ids:
    """Places in tokens (N,) at which a paragraph starts, around the middle."""
    first = max(0, len(tokens) // 2 - _AROUND)
    near = tokens[first : first + 2 * _AROUND].tolist()
    known = {each: tokenizer.decode(np.array([each])) for each in set(near)}
    pieces = [known[each] for each in near]
    text, ends = "".join(pieces), np.cumsum(list(map(len, pieces)))
    lines = text.count("\n")
    if 2 * lines > len(near):  # lines are tokens, such as the numbers of a series
        return np.empty(0, np.int64)
    for pattern in _PARAGRAPHS:
        found = [match.end() for match in re.finditer(pattern, text)]
        if len(found) * _LINES > lines:
            return first + 1 + np.flatnonzero(np.isin(ends, found))
    return np.empty(0, np.int64)
