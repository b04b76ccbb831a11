"""Errors as OpenAI's API gives them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from textgen import DeviceError, TextgenError, UsageError

logger = logging.getLogger("textgen_serve")
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_RETRIED: Final = (429, 503)
# The folders of an absolute path in a message; an address of the web is not one.
_FOLDERS: Final = re.compile(
    r"""(?<![^\s"'(=\[,])(?:[A-Za-z]:)?[\\/](?:[^\s\\/"':]{1,255}[\\/])+"""
)
_MESSAGE_CHARACTERS: Final = 1000  # characters of a message


class ClientGone(Exception):
    """The client has closed its connection, and nobody waits for the answer."""


class ApiError(Exception):
    """A request that is refused: a status, a message, the parameter at fault, and a code for
    programs.

    A message that quotes much of the request is cut off.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        message = (
            message if len(message) <= _MESSAGE_CHARACTERS else f"{message[:_MESSAGE_CHARACTERS]}…"
        )
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @classmethod
    def of(cls, error: TextgenError, names: Mapping[str, str]) -> ApiError:
        """The same of an error of the engine; one that is not the client's fault goes to the log,
        since it may name files.

        `names` are the client's names of the engine's options.
        """
        message = str(error)
        if not isinstance(error, UsageError) or isinstance(error, DeviceError):
            logger.error("%s", message)
            message = "the model failed; the server's log has the cause"
            return cls(500, message, code="model_error")
        param = error.argument.partition(".")[0]
        if param in names:
            message = message.replace(param, names[param])
        return cls(400, message, param=names.get(param, param) or None)

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        facts = {"message": self.message, "type": _TYPES.get(self.status, kind)}
        return {"error": {**facts, "param": self.param, "code": self.code}}

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that tell a client whether to try again, and when."""
        if self.status in _RETRIED:
            return [(b"retry-after", b"1"), (b"x-should-retry", b"true")]
        asked = [(b"www-authenticate", b"Bearer")] if self.status == 401 else []
        return [*asked, (b"x-should-retry", b"false")]


def without_folders(text: str, folder: Path) -> str:
    """A message in which paths in a folder are relative to it, and of other absolute ones only the
    last name is left: clients may read it.
    """
    relative = text.replace(f"{folder}{os.sep}", "").replace(str(folder), folder.name)
    return _FOLDERS.sub("", relative)
