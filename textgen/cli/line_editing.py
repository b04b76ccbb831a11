"""Line editing of a session: completion, and a history that is kept."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

_LINES: Final = 1000  # of the history that is kept


@contextlib.contextmanager
def line_editing(commands: Sequence[str], options: Sequence[str]) -> Iterator[None]:
    """Within it `input` has line editing where the platform has it, and the lines of earlier sessions.

    Tab completes `commands` at the beginning of a line, with the space that some end with, and `options` after /set and
    /unset.
    """
    try:
        import readline
    except ImportError:
        yield
        return
    readline.set_completer_delims(" \t=")
    readline.set_completer(_completer(commands, options))
    # libedit, which some platforms have in place of readline, binds keys in its own words.
    readline.parse_and_bind(
        "bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete"
    )
    for setting in (
        "input-meta on",
        "output-meta on",
        "convert-meta off",
    ):  # in a C locale, bytes of UTF-8 are no keys
        readline.parse_and_bind(f"set {setting}")
    file = _history_file()
    if file is not None:
        with contextlib.suppress(
            OSError
        ):  # there is none yet, or it cannot be read: a session works without
            readline.read_history_file(file)
    try:
        yield
    finally:
        if file is not None:
            readline.set_history_length(_LINES)
            with contextlib.suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                readline.write_history_file(file)


def _history_file() -> Path | None:
    """Where the history is kept, or None where the user wants none."""
    if os.environ.get("TEXTGEN_HISTORY", "on") in ("", "off"):
        return None
    import platformdirs

    return platformdirs.user_state_path("textgen", appauthor=False) / "history"


def _completer(commands: Sequence[str], options: Sequence[str]) -> Callable[[str, int], str | None]:
    import readline

    def complete(text: str, state: int) -> str | None:
        """The match number `state` for the word `text`. In a prompt, Tab is a character."""
        before = readline.get_line_buffer()[: readline.get_begidx()]
        if not before and text.startswith("/"):
            known: Sequence[str] = commands
        elif before.split() in (["/set"], ["/unset"]):
            known = options
        else:
            if state == 0:
                readline.insert_text("\t")
            return None
        matches = [name for name in known if name.startswith(text.replace("-", "_"))]
        return matches[state] if state < len(matches) else None

    return complete
