"""The options of a request for a text, and what they come to in a run."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import cached_property
from typing import Any, Final, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from textgen.documents import end_id
from textgen.errors import UsageError
from textgen.generation.chain import Chain
from textgen.generation.prompts import EncodedPrompt, encoded_prompt, spaced_tokens
from textgen.generation.results import GenerationState
from textgen.pipeline.options import (
    MAX_N,
    RequestOptions,
    TextOptions,
)
from textgen.plugin.config_reader import ConfigReader, Faults
from textgen.protocols import Ids, Table, Tokenizer

Prompt: TypeAlias = str | Sequence[int] | npt.NDArray[np.integer[Any]] | EncodedPrompt
"""What to continue: text, token ids (T,), or a prompt that Generator.prepare made of either."""
_OF_MANY: Final = frozenset(("n", "prompts", "batch_size", "distinct"))
_MAY_BE_NONE: Final = frozenset(("max_new_tokens", "stop", "stop_tokens", "time_limit"))
_CACHED_CHAINS: Final = 8  # chains: a form may take 30 MB
_CACHED_ITEMS: Final = 4096  # characters of a prompt, or items of another option


_FIELDS: Final = attrs.fields_dict(attrs.resolve_types(RequestOptions))


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


@attrs.frozen(eq=False)
class Requests:
    """Checks the requests for one run. Each fault of one is a UsageError.

    seed        the run's
    table       its `[generate]` table: the options that are not given
    chain       its chain of samplers
    make_chain  that chain, changed by sampling options
    priming     ids (T,) that texts begin after
    """

    tokenizer: Tokenizer
    model_id: str
    seed: int
    table: Table
    chain: Chain
    make_chain: Callable[[Table], Chain]
    priming: Ids
    _chains: dict[bytes, Chain] = attrs.field(factory=dict, init=False)

    def check(self, prompt: Any, options: Table) -> Request:
        """The request for one text."""
        if name := next(iter(_OF_MANY & options.keys()), None):
            raise UsageError("an option of generate_many, for all its prompts", argument=name)
        given = {
            name: _plain(value)
            for name, value in options.items()
            if value is not None or name in _MAY_BE_NONE
        }
        check_cancelled(cancelled := given.pop("cancelled", None))
        state = self._checked_state(given.pop("state", None))
        if given.get("seed") == "random":
            given["seed"] = secrets.randbits(63)
        if state is not None:
            given = {"seed": state.seed, "index": state.index, **given}
        checked = _checked(given)
        if sampling := {name: value for name, value in given.items() if name not in _FIELDS}:
            checked["chain"] = self._chain(sampling)
        if checked.get("ignore_end", self._own.ignore_end):
            checked["end_id"] = None
        checked |= {"cancelled": cancelled, "state": state}
        made = self._with_prompt(self._own, prompt, checked)
        check_decoding(made, self.tokenizer.vocab_size)
        return made

    def is_quick(self, prompt: Any, options: Table) -> bool:
        """Whether `check` takes a moment: all that is given is short, and the chain is known."""
        for value in (prompt, *options.values()):
            if isinstance(value, Mapping) or (
                isinstance(value, Sized) and len(value) > _CACHED_ITEMS
            ):
                return False
        sampling = {name: _plain(value) for name, value in options.items() if name not in _FIELDS}
        return not sampling or _key(sampling) in self._chains

    def check_many(self, prompts: Any, options: Table) -> tuple[Iterable[Request], int]:
        """The requests for prompts, those of a list or tuple checked at once, and the first
        index.
        """
        if isinstance(prompts, (str, Mapping)) or not isinstance(prompts, Iterable):
            cause = "expected a list of prompts; for one prompt, write [prompt], or use generate"
            raise UsageError(cause, argument="prompts")
        shared = self.check("", options)
        if options.get("seed") == "random":
            options = {**options, "seed": shared.seed}  # one for all
        each = self._each(prompts, shared, {k: v for k, v in options.items() if k != "index"})
        return (list(each) if isinstance(prompts, (list, tuple)) else each), shared.index or 0

    def _each(self, prompts: Iterable[Any], shared: Request, options: Table) -> Iterator[Request]:
        """The request for each of many prompts. An error says which it is."""
        shared = attrs.evolve(shared, index=None)
        for place, item in enumerate(prompts):
            try:
                if isinstance(item, Mapping):
                    own = {**options, **item}
                    request = self.check(own.pop("prompt", ""), own)
                else:
                    request = self._with_prompt(shared, item, {})
                request.check_end()
            except UsageError as error:
                error.source = f"prompts[{place}]"
                raise
            yield request

    def _with_prompt(self, request: Request, prompt: Any, own: Table) -> Request:
        """A request with its prompt, and other fields of its own."""
        chain, state, unknown = (
            own.get(name, getattr(request, name))
            for name in ("chain", "state", "unknown_characters")
        )
        # A sampler that ends texts knows what they may begin with.
        is_free = not any(link.ends for link in chain.links)
        made = encoded_prompt(
            self.tokenizer,
            prompt,
            unknown,
            lambda: self._spaced if is_free else None,
            self.priming,
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
        if max((*state.pending, *state.tail), default=0) >= self.tokenizer.vocab_size:
            raise UsageError("the saved state has ids outside the vocabulary", argument="state")
        return state

    @cached_property
    def _spaced(self) -> npt.NDArray[np.bool_] | None:
        return spaced_tokens(self.tokenizer)

    @cached_property
    def _own(self) -> Request:
        """The options that are not given, checked once."""
        options = {"seed": self.seed, **_checked(self.table)}
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
        value = table[name]
        if value is None and name in ("stop", "stop_tokens"):
            value = ()
        with faults.collected():
            made[name] = ConfigReader().at(name).field(_FIELDS[name], value)
    if faults:
        whole = (attrs.evolve(fault, path=fault.path.partition(".")[0]) for fault in faults)
        raise UsageError(faults=sorted(whole, key=lambda fault: fault.path))
    return made


def _key(sampling: Table) -> bytes:
    return hashlib.sha256(repr(sorted(sampling.items())).encode()).digest()


def check_cancelled(cancelled: Any) -> None:
    """Raise UsageError for anything but a function, or None."""
    if cancelled is not None and not callable(cancelled):
        hint = "give its is_set" if hasattr(cancelled, "is_set") else ""
        raise UsageError(
            "expected a function", argument="cancelled", value=cancelled, suggestion=hint
        )


def check_number(name: str, value: Any) -> int:
    """A number of texts, from 1 on. Raises UsageError."""
    plain = _plain(value)
    if type(plain) is not int or not 1 <= plain <= MAX_N:
        raise UsageError(f"expected an integer from 1 to {MAX_N:,}", argument=name, value=value)
    return plain


def check_decoding(options: TextOptions, vocab_size: int) -> None:
    """Check what depends on the vocabulary. Raises UsageError."""
    if any(not 0 <= token < vocab_size for token in options.stop_tokens):
        raise UsageError(f"expected ids from 0 to {vocab_size - 1}", argument="stop_tokens")


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's: ids and seeds often come as such."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
