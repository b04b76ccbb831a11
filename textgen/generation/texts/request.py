"""The options of a request for a text, and what they come to in a run."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import cached_property
from typing import Any, Final, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from textgen.documents import end_id
from textgen.errors import UsageError
from textgen.generation.sampling.chain import Chain
from textgen.generation.texts.prompts import EncodedPrompt, encoded_prompt, spaced_tokens
from textgen.generation.texts.results import GenerationState
from textgen.pipeline.options import MAX_N, RequestOptions
from textgen.plugin.config_reader import ConfigReader, Faults
from textgen.protocols import Ids, Table, Tokenizer

Prompt: TypeAlias = str | Sequence[int] | npt.NDArray[np.integer[Any]] | EncodedPrompt
"""What to continue: text, token ids (T,), or a prompt that Generator.prepare made of either."""
_NO_LIMIT: Final = {"max_new_tokens": None, "time_limit": None, "stop": (), "stop_tokens": ()}
"""What None stands for. That of other options is as if they were not given."""
_CACHED_CHAINS: Final = 8  # chains: a form may take 30 MB
_QUICK_ITEMS: Final = 4096  # characters of a prompt, or items of another option


_FIELDS: Final = attrs.fields_dict(attrs.resolve_types(RequestOptions))
_NOT_FOR_SAMPLERS: Final = frozenset((*_FIELDS, "cancelled", "state"))


@attrs.frozen(kw_only=True, eq=False)
class Request(RequestOptions):
    """A checked request.

    chain     the samplers; rows of one chain are sampled together
    end_id    the token by which the model ends the text
    """

    seed: int
    chain: Chain
    end_id: int | None = None
    cancelled: Callable[[], bool] | None = None
    state: GenerationState | None = None
    prompt: EncodedPrompt = attrs.field(factory=EncodedPrompt)

    def check_end(self) -> None:
        """Raise UsageError if nothing would ever end the text."""
        ends = self.stops or self.stop_tokens or self.cancelled or self.end_id is not None
        if self.max_new_tokens is None and self.time_limit is None and not ends:
            hint = "use stream, or give stop, time_limit or cancelled"
            raise UsageError("None never ends", argument="max_new_tokens", suggestion=hint)


@attrs.frozen(eq=False, kw_only=True, repr=False)
class RequestChecker:
    """The part of a generator that checks requests. Each fault of one is a UsageError."""

    tokenizer: Tokenizer
    chain: Chain
    make_chain: Callable[[Table], Chain]
    seed: int = 0
    defaults: Table = attrs.field(factory=dict)
    model_id: str = ""
    record: Table = attrs.field(factory=dict)
    _chains: dict[str, Chain] = attrs.field(factory=dict, init=False)

    def _check(self, prompt: Any, options: Table) -> Request:
        """The request for one text."""
        given = dict[str, Any]()
        for name, value in options.items():
            if value is not None:
                given[str(name)] = _plain(value)
            elif name in _NO_LIMIT:
                given[name] = _NO_LIMIT[name]
        check_cancelled(cancelled := given.pop("cancelled", None))
        state = self._checked_state(given.pop("state", None))
        if given.get("seed") == "random":
            given["seed"] = secrets.randbits(63)
        if state is not None:
            given = {"seed": state.seed, "index": state.index, **given}
        checked = _checked(given)
        if sampling := sampling_options(given):
            checked["chain"] = self._chain(sampling)
        if checked.get("ignore_end", self._own.ignore_end):
            checked["end_id"] = None
        checked |= {"cancelled": cancelled, "state": state}
        made = self._with_prompt(self._own, prompt, checked)
        size = self.tokenizer.vocab_size
        if any(not 0 <= token < size for token in made.stop_tokens):
            raise UsageError(f"expected ids from 0 to {size - 1}", argument="stop_tokens")
        return made

    def _is_quick(self, prompt: Any, options: Table) -> bool:
        """Whether `_check` takes a moment: all that is given is short, and the chain is known."""
        for value in (prompt, *options.values()):
            if isinstance(value, Sized) and len(value) > _QUICK_ITEMS:
                return False
        sampling = sampling_options(options)
        return not sampling or _key(sampling) in self._chains

    def _check_many(self, prompts: Any, options: Table) -> tuple[Iterable[Request], int]:
        """The requests for prompts, those of a list or tuple checked at once, and the first
        index.
        """
        if isinstance(prompts, (str, Mapping)) or not isinstance(prompts, Iterable):
            cause = "expected a list of prompts; for one prompt, write [prompt], or use generate"
            raise UsageError(cause, argument="prompts")
        shared = self._check("", options)
        if options.get("seed") == "random":
            options = {**options, "seed": shared.seed}  # one for all
        each = self._check_each(prompts, shared, {k: v for k, v in options.items() if k != "index"})
        return (list(each) if isinstance(prompts, (list, tuple)) else each), shared.index or 0

    def _check_each(
        self, prompts: Iterable[Any], shared: Request, options: Table
    ) -> Iterator[Request]:
        """The request for each of many prompts. An error says which it is."""
        shared = attrs.evolve(shared, index=None)
        for position, item in enumerate(prompts):
            try:
                if isinstance(item, Mapping):
                    own = {**options, **item}
                    request = self._check(own.pop("prompt", ""), own)
                    if not item.keys() & {"index", "state"}:
                        request = attrs.evolve(request, index=None)
                else:
                    request = self._with_prompt(shared, item, {})
                request.check_end()
            except UsageError as error:
                error.source = f"prompts[{position}]"
                raise
            yield request

    def _with_prompt(self, request: Request, prompt: Any, own: Table) -> Request:
        """A request with its prompt, and other fields of its own."""
        chain = own.get("chain", request.chain)
        state = own.get("state", request.state)
        # A sampler that ends texts knows what they may begin with.
        is_free = not any(link.ends for link in chain.links)
        made = encoded_prompt(
            self.tokenizer,
            prompt,
            own.get("unknown_characters", request.unknown_characters),
            lambda: self._spaced if is_free else None,
            self._priming,
            after_space=state is not None and state.held,
        )
        return attrs.evolve(request, **own, prompt=made)

    def _checked_state(self, state: Any) -> GenerationState | None:
        """A saved state, once it is known to be of this run."""
        if state is None:
            return None
        if not isinstance(state, GenerationState):
            raise UsageError("expected a GenerationState", argument="state", value=state)
        if state.model != self.model_id:
            cause = "the saved state belongs to another model; it resumes only with its own run"
            raise UsageError(cause, argument="state")
        ids = (*state.pending, *state.tail, *state.priming)
        if max(ids, default=0) >= self.tokenizer.vocab_size:
            raise UsageError("the saved state has ids outside the vocabulary", argument="state")
        return state

    @cached_property
    def _spaced(self) -> npt.NDArray[np.bool_] | None:
        return spaced_tokens(self.tokenizer)

    @cached_property
    def _priming(self) -> Ids:
        """(N,) ids that texts begin after."""
        end = end_id(self.tokenizer)
        ids = self.record.get("priming") or ([] if end is None else [end])
        return np.array(ids, np.int64)

    @cached_property
    def _own(self) -> Request:
        """The options that are not given, checked once."""
        options = {"seed": self.seed, **_checked(self.defaults)}
        return Request(**options, chain=self.chain, end_id=end_id(self.tokenizer))

    def _chain(self, sampling: Table) -> Chain:
        """The run's chain changed by options; one object for equal options, so that rows share it,
        among the last ones. Raises UsageError.
        """
        key = _key(sampling)
        made = self._chains.pop(key, None) or self.make_chain(sampling)
        self._chains[key] = made
        for old in [*self._chains][:-_CACHED_CHAINS]:
            self._chains.pop(old, None)
        return made


def _checked(table: Table) -> dict[str, Any]:
    """The options of a table that are not for samplers. Raises UsageError."""
    made, faults = dict[str, Any](), Faults()
    for name in _FIELDS.keys() & table.keys():
        with faults.collected():
            made[name] = ConfigReader().at(name).field(_FIELDS[name], table[name])
    if faults:
        raise UsageError(faults=faults)
    return made


def sampling_options(options: Table) -> dict[str, Any]:
    """The options that samplers and strategies take."""
    return {
        str(name): _plain(value)
        for name, value in options.items()
        if value is not None and name not in _NOT_FOR_SAMPLERS
    }


def _key(sampling: Table) -> str:
    return repr(sorted(sampling.items()))


def check_cancelled(cancelled: Any) -> None:
    """Raise UsageError for anything but a function, or None."""
    if cancelled is not None and not callable(cancelled):
        raise UsageError("expected a function", argument="cancelled", value=cancelled)


def check_number(name: str, value: Any) -> None:
    """A number of texts, from 1 on. Raises UsageError."""
    plain = _plain(value)
    if type(plain) is not int or not 1 <= plain <= MAX_N:
        raise UsageError(f"expected an integer from 1 to {MAX_N:,}", argument=name, value=value)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's: ids and seeds often come as such."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
