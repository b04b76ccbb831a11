"""POST /v1/chat/completions for clients that know nothing else: the contents of all messages, one
after the other, are the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from textgen_serve.errors import ApiError

_NOT_OF_CHATS: Final = ("prompt", "echo", "logprobs", "top_logprobs", "prompt_logprobs")


def as_completion(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the same request to POST /v1/completions. Raises ApiError."""
    given = {name: value for name, value in body.items() if name != "messages"}
    for name in _NOT_OF_CHATS:
        if given.pop(name, None):
            raise ApiError(400, f"{name} needs POST /v1/completions", param=name)
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise ApiError(400, "messages must be a list of objects", param="messages")
    return {**given, "prompt": "".join(_text(each.get("content")) for each in messages)}


def _text(content: Any) -> str:
    """The text of a message, which may be in parts."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    shown = [text for text in texts if isinstance(text, str)]
    if len(shown) < len(parts):
        raise ApiError(400, "the content of a message must be text", param="messages")
    return "".join(shown)
