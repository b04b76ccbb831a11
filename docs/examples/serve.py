"""Serves a trained model over HTTP, streaming each text while it is generated.

    $ TEXTGEN_RUN=runs/my-novel uvicorn serve:app --limit-concurrency 256
    $ curl --no-buffer localhost:8000/generate \\
        --json '{"prompt": "The door", "max_new_tokens": 200, "seed": 7}'

The same prompt, seed and options give the same text, whatever else the server generates at the same
time. Requests that run at the same time share a batch.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import textgen

# What a client may set. A time limit keeps one request from occupying the server.
OPTIONS = {
    "max_new_tokens",
    "stop",
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
}
MOST_TOKENS = 10_000
MOST_CHARACTERS = 100_000  # of a prompt
SECONDS = 30.0


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Load the model once. A generator is immutable, so all requests share it."""
    app.state.generator = textgen.load(os.environ["TEXTGEN_RUN"])
    yield


async def generate(request: Request) -> Response:
    """POST {"prompt": "...", "max_new_tokens": 200, ...} for the continuation, as plain text in
    pieces.
    """
    generator: textgen.Generator = request.app.state.generator
    try:
        options = await request.json()
        prompt = options.pop("prompt", "")
    except (ValueError, AttributeError, TypeError):
        return JSONResponse({"error": "expected a JSON object"}, status_code=400)
    if unknown := options.keys() - OPTIONS:
        return JSONResponse(
            {"error": f"unknown options: {', '.join(sorted(unknown))}"}, status_code=400
        )
    wanted = options.setdefault("max_new_tokens", 400)
    if not isinstance(wanted, int) or wanted > MOST_TOKENS:
        return JSONResponse(
            {"error": f"max_new_tokens must be a number of at most {MOST_TOKENS}"}, status_code=400
        )
    if not isinstance(prompt, str) or len(prompt) > MOST_CHARACTERS:
        return JSONResponse(
            {"error": f"prompt must be a string of at most {MOST_CHARACTERS}"}, status_code=400
        )
    try:
        pieces = await generator.astream(prompt, time_limit=SECONDS, **options)
    except textgen.DeviceError:  # the fault of the server, which answers 500
        raise
    except textgen.UsageError as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    # Starlette cancels the task that reads the pieces when the client disconnects, and that ends
    # the text.
    return StreamingResponse(pieces, media_type="text/plain")


app = Starlette(routes=[Route("/generate", generate, methods=["POST"])], lifespan=lifespan)
