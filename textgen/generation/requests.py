"""Requests, checked and made into continuations that a scheduler can run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import attrs

from textgen.errors import UsageError
from textgen.generation.arguments import Defaults, ManyOptions, Prompt, Request, Settings, check_integer
from textgen.generation.continuation import Continuation, PromptText
from textgen.generation.detokenise import Tail
from textgen.generation.prompts import check_prompt, document_start, prompt_text
from textgen.generation.results import GenerationState
from textgen.pipeline.options import MAX_N, MAX_SEED
from textgen.protocols import Tokenizer

_Given: TypeAlias = tuple[Request, Settings, PromptText]


@attrs.frozen(eq=False)
class Requests:
    """Makes continuations for one run. Whatever is wrong with a request is a UsageError."""

    tokenizer: Tokenizer
    run: Defaults
    model_id: str

    def one(self, request: Request, *, whole: bool = False) -> tuple[Continuation, float | None]:
        """A continuation with nothing done for it yet, and its time limit. With `whole` it has to end."""
        given = self._checked(request, None, whole)
        index = check_integer("index", request.index or 0, 0, MAX_SEED - 1)
        return self._continuation(given, index), given[1].decoding.time_limit

    def many(
        self, prompts: Iterable[Prompt | Request], options: ManyOptions, *, whole: bool = False
    ) -> Iterator[Continuation]:
        """The continuations of prompts, each made when it is asked for; prompts in a list are checked at once."""
        if isinstance(prompts, (str, Request)):
            raise UsageError("expected a list; for one, write [prompt], or use generate or stream", argument="prompts")
        if not isinstance(prompts, Iterable):
            raise UsageError("expected a list or another iterable of prompts", argument="prompts", value=prompts)
        check_integer("n", options.n, 1, MAX_N)
        check_integer("batch_size", options.batch_size, 1, MAX_N)
        first = check_integer("index", options.index, 0, MAX_SEED - 1)
        shared = Settings.of(options, self.run)
        if whole and not isinstance(prompts, (list, tuple)):
            shared.must_end()
        given = (self._among(place, item, options, shared, whole) for place, item in enumerate(prompts))
        return self._continuations(list(given) if isinstance(prompts, (list, tuple)) else given, first, options.n)

    def _among(self, place: int, item: Prompt | Request, options: ManyOptions, shared: Settings, whole: bool) -> _Given:
        """One of many. What is wrong with it is an error that says which it is."""
        try:
            if isinstance(item, Request):
                return self._checked(item.over(options), None, whole)
            return self._checked(Request(item), shared, whole)
        except UsageError as error:
            error.source = f"prompts[{place}]"
            raise

    def _checked(self, request: Request, settings: Settings | None, whole: bool) -> _Given:
        state = request.state
        if state is not None and not isinstance(state, GenerationState):
            raise UsageError("expected a GenerationState", argument="state", value=state)
        if state is not None and state.values["model"] != self.model_id:
            raise UsageError("the saved state belongs to another model; it resumes only with the run that made it")
        if settings is None:
            settings = Settings.of(request, self.run, None if state is None else state.values["sampling"])
        if whole:
            settings.must_end()
        ids = check_prompt(self.tokenizer, request.prompt, settings.decoding.unknown_characters)
        text = prompt_text(self.tokenizer, request.prompt, ids)
        start = document_start(self.tokenizer, request.prompt)
        return request, settings, PromptText(text, ids, Tail.of(self.tokenizer, ids), start)

    def _continuations(self, given: Iterable[_Given], first: int, n: int) -> Iterator[Continuation]:
        deadlines: dict[float, float | None] = {}  # one clock for all
        indices = itertools.count(first)
        for each in given:
            limit = each[1].decoding.time_limit
            deadline = None if limit is None else deadlines.setdefault(limit, each[1].deadline())
            for index in itertools.islice(indices, n):
                text = self._continuation(each, index if each[0].index is None else each[0].index)
                text.row.deadline = deadline
                yield text

    def _continuation(self, given: _Given, index: int) -> Continuation:
        request, settings, prompt = given
        seed, state = settings.seed, request.state
        if state is not None:
            own = state.values["index"]
            if index not in (0, own) and request.index is not None:
                raise UsageError(f"the saved state resumes with its own index, {own}; give another seed instead")
            seed, index = state.values["seed"] if request.seed is None else seed, own
        return Continuation.begin(
            self.tokenizer, prompt, settings, seed=seed, index=index, state=state, keep_state=request.keep_state
        )
