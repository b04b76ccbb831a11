"""Work in the folder of a desk, whose faults become answers."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from textgen import TextgenError, UsageError
from textgen_serve.errors import ApiError, logger, without_folders

_FULL: Final = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
# Something of another kind has the name of a file or a folder of the desk.
_IN_THE_WAY: Final = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ELOOP)


async def done(folder: Path, function: Callable[..., Any], *given: Any) -> Any:
    """The result of a function that works in a folder, in a thread.

    Raises ApiError: 400 where the request is wrong, 409 where a file of the folder is, 507 where
    the disk is full. It names no folder; the log has the whole cause.
    """
    try:
        return await asyncio.to_thread(function, *given)
    except TextgenError as error:
        status = 400 if isinstance(error, UsageError) else 409
        raise ApiError(status, without_folders(str(error), folder)) from error
    except OSError as error:
        logger.error("%s: %s", folder, error)
        cause = error.strerror or type(error).__name__
        file = without_folders(str(error.filename or ""), folder) or folder.name
        status = 507 if error.errno in _FULL else 409 if error.errno in _IN_THE_WAY else 500
        raise ApiError(status, f"{file}: {cause}; nothing was changed") from error
