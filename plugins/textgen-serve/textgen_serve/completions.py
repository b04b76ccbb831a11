"""POST /v1/completions: whole answers and streams."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from json.encoder import encode_basestring
from typing import Any, Final

import attrs
import numpy as np

from textgen import (
    AsyncTextStream,
    EncodedPrompt,
    Generation,
    Generator,
    TextgenError,
    TokenLogprobs,
)
from textgen.protocols import Floats, Ids
from textgen_serve.errors import ApiError
from textgen_serve.json_body import dump, dump_long
from textgen_serve.limits import Limits
from textgen_serve.logprobs import Spelling, TokenTexts, finite, legacy, of_prompt
from textgen_serve.models import ServedRun
from textgen_serve.parameters import Completion, Prompt

_NAMES: Final = {"max_new_tokens": "max_tokens"}
_FINISH: Final = {"end": "stop", "stop": "stop"}
_INLINE_TOKENS: Final = 4096  # tokens and log-probabilities: for more, a thread is used
_UNSENT_TOKENS: Final = 1 << 14  # of them, which a stream may have before they are sent
_PLAIN_ENDING: Final = b'"logprobs":null,"finish_reason":null}'
_UNSENT_PIECES: Final = 16  # pieces that wait to be sent, for each request


@attrs.define(eq=False)
class PreparedPrompt:
    """A prompt, encoded once for all of its texts, and the log-probabilities of its tokens, if they
    are asked for.
    """

    given: EncodedPrompt
    scores: Sequence[TokenLogprobs] = ()

    @property
    def ids(self) -> Ids:
        """(T,) its ids."""
        return self.given.ids

    @property
    def text(self) -> str:
        """Its text."""
        return self.given.text


class Job:
    """The work for one request, on the run as it was when the request came. Answers are in the
    shape of chats if `is_chat`.

    scoring  held while a prompt is scored
    """

    def __init__(
        self,
        run: ServedRun,
        completion: Completion,
        limits: Limits,
        scoring: asyncio.Semaphore,
        *,
        is_chat: bool = False,
    ) -> None:
        self.completion, self.is_chat = completion, is_chat
        self._scoring = scoring
        self._generator: Generator = run.generator
        self._spelling = Spelling(run.generator.tokenizer)
        self._limits = limits
        self._prompts: list[PreparedPrompt] = []
        self.model = run.name
        kind = "chat.completion" if is_chat else "text_completion"
        self._frame = {
            "id": f"{'chat' * is_chat}cmpl-{secrets.token_hex(12)}",
            "object": kind + ".chunk" * (is_chat and completion.stream),
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": run.generator.model_id[:16],
        }
        self.completion_tokens = 0
        self._ended = 0  # streams

    @property
    def is_made(self) -> bool:
        """Whether only a few events are left of the streams, which wait for nothing."""
        return self._ended == self.completion.rows and self.completion.logprobs is None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(len(prompt.ids) for prompt in self._prompts)

    async def prepare(self) -> None:
        """Check and encode the prompts, and score them if that is asked for. Raises ApiError."""
        for number, prompt in enumerate(self.completion.prompts):
            await asyncio.sleep(0)  # each of many takes a part of a millisecond
            try:
                await self._prepare(prompt)
            except TextgenError as error:
                raise refusal(error) from error
            except ApiError as error:
                if len(self.completion.prompts) > 1:
                    error.message = f"prompt {number}: {error.message}"
                raise

    async def answer(self) -> bytes:
        """The whole answer, as JSON. Raises ApiError."""
        asked = self.completion
        tasks = []
        try:
            for prompt in self._prompts:
                for index in range(asked.index, asked.index + asked.texts):
                    tasks.append(asyncio.create_task(self._generate(prompt, index)))
                    await asyncio.sleep(0)
            made = await asyncio.gather(*tasks)
        except TextgenError as error:
            raise refusal(error) from error
        finally:
            for task in tasks:
                task.cancel()
        size = self.prompt_tokens + self.completion_tokens + self._size(self.completion_tokens)
        if size <= _INLINE_TOKENS:
            return dump(self._whole(made))
        return await asyncio.to_thread(lambda: dump_long(self._whole(made)))

    async def _prepare(self, prompt: Prompt) -> None:
        asked, most = self.completion, self._limits.prompt_tokens
        made = PreparedPrompt(await prepared(self._generator, prompt, asked, most))
        self._prompts.append(made)
        new = asked.options["max_new_tokens"]
        if asked.stream:
            new = min(new, _UNSENT_TOKENS // (1 + (asked.logprobs or 0)))
        if self._size(asked.rows * new) > (most := self._limits.answer):
            message = f"an answer may have {most:,} echoed tokens and log-probabilities"
            raise ApiError(400, message, param="logprobs" if asked.logprobs else "n")
        count = asked.prompt_logprobs
        if asked.echo and asked.logprobs is not None:
            count = max(asked.logprobs, count or 0)
        if count is not None and len(made.ids):
            async with self._scoring:
                scored = await self._generator.agenerate(
                    made.given, max_new_tokens=0, echo=True, logprobs=count
                )
            made.scores = scored.logprobs

    def _size(self, new: int) -> int:
        """The number of echoed tokens and log-probabilities, with so many new tokens."""
        asked = self.completion
        own = 0 if asked.noted is None else asked.noted + 1
        others = 0 if asked.prompt_logprobs is None else asked.prompt_logprobs + 1
        echoed = (1 + own) * asked.echo + others
        return new * own + self.prompt_tokens * asked.n * echoed

    async def _generate(self, prompt: PreparedPrompt, index: int) -> Generation:
        asked = self.completion
        made = await self._generator.agenerate(
            prompt.given, **asked.options, seed=asked.seed, index=index, logprobs=asked.noted
        )
        self.completion_tokens += len(made.tokens)
        has_tokens = asked.logprobs is not None or asked.return_token_ids
        return made if has_tokens else attrs.evolve(made, tokens=())  # which take the most memory

    def _whole(self, made: Sequence[Generation]) -> dict[str, Any]:
        asked, choices = self.completion, list[dict[str, Any]]()
        for number, prompt in enumerate(self._prompts):
            texts = made[number * asked.texts : (number + 1) * asked.texts]
            if asked.texts > asked.n:  # the best of them
                texts = sorted(texts, key=_mean_logprob)[: asked.n]
            for text in texts:
                choices.append(self._choice(len(choices), prompt, text))
        return {**self._frame, "choices": choices, "usage": self.usage()}

    def _choice(self, index: int, prompt: PreparedPrompt, made: Generation) -> dict[str, Any]:
        asked = self.completion
        text = (prompt.text if asked.echo else "") + made.text
        message = {"message": {"role": "assistant", "content": text}}
        choice: dict[str, Any] = {
            "index": index,
            **(message if self.is_chat else {"text": text}),
            "logprobs": None,
            "finish_reason": _FINISH.get(made.finish_reason, "length"),
            "textgen": _facts(made.seed, made.index, made.finish_reason),
        }
        if asked.logprobs is not None:
            skip = 0 if asked.echo else prompt.given.held
            texts = self._spelling.pieces(prompt.ids, skip)
            *offsets, offset = self._prompt_offsets(prompt) if asked.echo else [0]
            for token in made.tokens:
                offsets.append(offset)
                offset += len(texts.add(token))
            entries = [*(prompt.scores if asked.echo else ()), *made.logprobs]
            choice["logprobs"] = legacy(
                _cut(entries, asked.logprobs), offsets, self._spelling, skip
            )
        if asked.prompt_logprobs is not None:
            choice["prompt_logprobs"] = of_prompt(
                prompt.scores, asked.prompt_logprobs, self._spelling
            )
        if asked.return_token_ids:
            choice["token_ids"] = list(made.tokens)
            choice["prompt_token_ids"] = prompt.ids.tolist()
        return choice

    def _prompt_offsets(self, prompt: PreparedPrompt) -> list[int]:
        """Offsets in the prompt where its tokens begin, and the text's first."""
        end = len(prompt.text) - prompt.given.held
        return [*self._spelling.offsets(prompt.text[:end], prompt.ids)[:-1], end]

    def usage(self) -> dict[str, int]:
        """The number of tokens: of prompts, of all texts, and together."""
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }

    async def open(self) -> list[AsyncTextStream]:
        """The streams of all texts, checked. Raises ApiError."""
        asked, streams = self.completion, []
        try:
            for prompt in self._prompts:
                for index in range(asked.index, asked.index + asked.n):
                    stream = await self._generator.astream(
                        prompt.given,
                        **asked.options,
                        seed=asked.seed,
                        index=index,
                        logprobs=asked.logprobs,
                    )
                    streams.append(stream)
                    await asyncio.sleep(0)
        except TextgenError as error:
            raise refusal(error) from error
        return streams

    async def events(self, streams: Sequence[AsyncTextStream]) -> AsyncGenerator[bytes]:
        """The events of all texts as they come, but for the last, `[DONE]`. Raises ApiError."""
        texts = [self._text(index, stream) for index, stream in enumerate(streams)]
        try:
            async with aclosing(texts[0] if len(texts) == 1 else _merged(texts)) as events:
                async for event in events:
                    yield event
        except TextgenError as error:
            raise refusal(error) from error
        if self.completion.include_usage:
            yield b"data: %s\n\n" % dump({**self._frame, "choices": [], "usage": self.usage()})

    async def _text(self, index: int, stream: AsyncTextStream) -> AsyncGenerator[bytes]:
        """The events of one text."""
        prompt = self._prompts[index // self.completion.n]
        events = ChoiceEvents(self, index, prompt, self._spelling, self._frame)
        async with stream:
            if self.is_chat:
                yield events.role()
            if self.completion.echo:
                yield await asyncio.to_thread(events.opening)
            async for piece in stream:
                self.completion_tokens += len(stream.ids)
                self._ended += stream.finish_reason is not None
                for event in events.of_piece(piece, stream):
                    yield event
            self.completion_tokens += len(stream.ids)
            for event in events.closing(stream):
                yield event


async def _merged(texts: Sequence[AsyncGenerator[bytes]]) -> AsyncGenerator[bytes]:
    """The events of several texts, each as it comes."""
    queue = asyncio.Queue[bytes | Exception | None](_UNSENT_PIECES)

    async def read(text: AsyncGenerator[bytes]) -> None:
        try:
            async with aclosing(text):
                async for event in text:
                    await queue.put(event)
        except Exception as error:  # the writer raises it
            await queue.put(error)
        else:
            await queue.put(None)

    tasks = [asyncio.create_task(read(text)) for text in texts]
    try:
        for _ in tasks:
            while (event := await queue.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class ChoiceEvents:
    """The events of one text of a stream: one for each token with log-probabilities, else one for
    each piece.
    """

    def __init__(
        self,
        job: Job,
        index: int,
        prompt: PreparedPrompt,
        spelling: Spelling,
        frame: dict[str, Any],
    ) -> None:
        self._asked, self._prompt, self._spelling = job.completion, prompt, spelling
        self._job = job
        self._begin = b'data: %s,"choices":[{"index":%d,' % (dump(frame)[:-1], index)
        self._text = (b'"delta":{"content":', b"}") if job.is_chat else (b'"text":', b"")
        self._skip = 0 if self._asked.echo else prompt.given.held
        self._texts: TokenTexts = spelling.pieces(prompt.ids, self._skip)
        self._waiting: deque[TokenLogprobs] = deque()  # the text of the first is `_next`
        self._next: str | None = None
        self._ready = ""  # text that came and is not shown yet
        self._offset = 0

    def role(self) -> bytes:
        """The first chunk of a chat."""
        delta = b'"delta":{"role":"assistant","content":""},'
        return b"%s%s%s]}\n\n" % (self._begin, delta, _PLAIN_ENDING)

    def opening(self) -> bytes:
        """The prompt, which may be long."""
        asked, prompt, logprobs = self._asked, self._prompt, None
        if asked.logprobs is not None:
            *offsets, self._offset = self._job._prompt_offsets(prompt)
            self._ready = prompt.text[self._offset :]  # comes with the first token
            logprobs = legacy(_cut(prompt.scores, asked.logprobs), offsets, self._spelling)
        text = prompt.text.removesuffix(self._ready)
        return self._event(text, logprobs, prompt.ids, encode=dump_long)

    def of_piece(self, piece: str, stream: AsyncTextStream) -> Iterator[bytes]:
        """The chunk for a piece of the text."""
        if self._asked.logprobs is None:
            return iter([self._event(piece, None, stream.ids)])
        self._ready += piece
        return self._settled(stream.logprobs)

    def closing(self, stream: AsyncTextStream) -> Iterator[bytes]:
        """The tokens that came after the last piece, and the reason of the end."""
        ids = stream.ids
        if self._asked.logprobs is not None:
            yield from self._settled(stream.logprobs, is_end=True)
            ids = ids[:0]
        reason = stream.finish_reason or "cancelled"
        facts = _facts(stream.seed, stream.index, reason)
        end = {"finish_reason": _FINISH.get(reason, "length"), "textgen": facts}
        yield self._event(self._ready, None, ids, end)

    def _settled(self, more: list[TokenLogprobs], *, is_end: bool = False) -> Iterator[bytes]:
        """The events of tokens whose text has come; at the end of all, with the text that is left
        for them.

        Text that may belong to a stop text comes later than its tokens, or never.
        """
        self._waiting.extend(more)
        while self._waiting:
            if self._next is None:
                self._next = self._texts.add(self._waiting[0].token)
            if not is_end and len(self._next) > len(self._ready):
                return
            entry, size = self._waiting.popleft(), len(self._next)
            offset, self._offset, self._next = self._offset, self._offset + size, None
            if is_end and not self._waiting:
                size = max(size, len(self._ready))
            shown, self._ready = self._ready[:size], self._ready[size:]
            entries = _cut([entry], self._asked.logprobs)
            logprobs, self._skip = legacy(entries, [offset], self._spelling, self._skip), 0
            yield self._event(shown, logprobs, np.array([entry.token]))

    def _event(
        self,
        text: str,
        logprobs: Any,
        ids: Ids,
        end: dict[str, Any] | None = None,
        encode: Callable[[Any], bytes] = dump,
    ) -> bytes:
        rest = _PLAIN_ENDING
        if logprobs is not None or end or self._asked.return_token_ids:
            values = {"logprobs": logprobs, "finish_reason": None, **(end or {})}
            if self._asked.return_token_ids:
                values["token_ids"] = ids.tolist()
            rest = encode(values)[1:]
        before, after = self._text
        shown = before + encode_basestring(text).encode() + after
        return b"%s%s,%s]}\n\n" % (self._begin, shown, rest)


async def prepared(
    generator: Generator, prompt: Prompt, asked: Completion, most: int
) -> EncodedPrompt:
    """A prompt, encoded. Raises ApiError for more than `most` tokens."""
    if isinstance(prompt, str) or len(prompt) <= most:
        made = await generator.aprepare(prompt, **asked.options)
        if len(made.ids) <= most:
            return made
    raise ApiError(400, f"a prompt may have {most:,} tokens", param="prompt")


async def next_tokens(
    generator: Generator, asked: Completion, count: int, most: int
) -> dict[str, Any]:
    """The `count` likeliest next tokens by the model, and those after the samplers, by the model's
    order.

    They follow the first `max_tokens` tokens of a text, if there are any, else its prompt. Raises
    ApiError.
    """
    options = {**asked.options, "seed": asked.seed, "index": asked.index}
    wanted, text = options["max_new_tokens"], ""
    try:
        prompt: Any = await prepared(generator, asked.prompts[0], asked, most)
        held = prompt.held
        if wanted:
            made = await generator.agenerate(prompt, **options, keep_state=True)
            if len(made.tokens) < wanted:
                message = f"the text ends after {len(made.tokens):,} tokens"
                raise ApiError(400, message, param="max_tokens")
            prompt, options["state"], text, held = "", made.state, made.text, 0
        given, sampled = await generator.anext_logprobs(prompt, **options)
    except TextgenError as error:
        raise refusal(error) from error
    return await asyncio.to_thread(_following, generator, text, given, sampled, count, held)


def _following(
    generator: Generator,
    text: str,
    given: Floats,
    sampled: Floats,
    count: int,
    held: int,
) -> dict[str, Any]:
    """The answer of /next_tokens, from log-probabilities (V,). The first `held` characters of each
    token are in the prompt.
    """
    likeliest = [np.argsort(-each, kind="stable")[:count].tolist() for each in (given, sampled)]
    chosen = sorted({*likeliest[0], *likeliest[1]}, key=lambda token: (-given[token], token))
    spelling = Spelling(generator.tokenizer)
    return {
        "text": text,
        "tokens": [
            {
                "id": token,
                "text": spelling(token)[held:],
                "logprob": finite(given[token]),
                "sampled_logprob": float(sampled[token]) if np.isfinite(sampled[token]) else None,
            }
            for token in chosen
            if token in likeliest[0] or np.isfinite(sampled[token])
        ],
    }


def _facts(seed: int, index: int, reason: str) -> dict[str, Any]:
    """Facts to get the same text again, and why it ended in the engine's words."""
    return {"seed": seed, "index": index, "finish_reason": reason}


def _cut(entries: Iterable[TokenLogprobs], count: int | None) -> Iterator[TokenLogprobs]:
    """The entries with so many alternatives."""
    return (attrs.evolve(entry, top=entry.top[:count]) for entry in entries)


def _mean_logprob(made: Generation) -> float:
    """A key for sorting: the best text first."""
    known = [entry.logprob for entry in made.logprobs if entry.logprob is not None]
    return -sum(known) / len(known) if known else 0.0


def refusal(error: TextgenError) -> ApiError:
    """An error of the engine, with the names that parameters have here."""
    return ApiError.of(error, _NAMES)
