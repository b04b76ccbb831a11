"""The components that a run or a generator is made of: built, blamed for what fails in them, and
closed.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import traceback
import types
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import attrs

from textgen.contracts.checks import FAILURES, kind_of, misdeclared, unfit
from textgen.errors import (
    BrokenContract,
    ContractError,
    DeviceError,
    PluginWarning,
    TextgenError,
    UsageError,
)
from textgen.plugin.component import OBJECT, OWN_DISTRIBUTION, BuildContext, RegisteredComponent
from textgen.plugin.configured import ConfiguredComponent
from textgen.plugin.tracebacks import package_of, packages_of
from textgen.plugin.validation import cause_of

_Method = TypeVar("_Method", bound=Callable[..., Any])


class Components(contextlib.ExitStack[bool | None]):
    """Builds components.

    At its end those that have a method `close` are closed, the last one first.

    It is the boundary of plugins' code: an exception that leaves the block, or a block of
    `blaming`, and was raised in code of a plugin that takes part becomes a ContractError, which
    names the component.

    load_start  called with each model that starts from another run, its choice and the context that
                it was built in
    spared      an exception of the caller's own code, which stays what it is
    """

    load_start: Callable[[Any, ConfiguredComponent, BuildContext], None] | None = None
    spared: BaseException | None = None

    def __init__(self, base: Components | None = None) -> None:
        """Components of a run, or a part of `base`, such as those of a request: it closes them
        at the latest.

        Only what has to be closed is kept, and a base does not keep its parts.
        """
        super().__init__()
        self._built: list[tuple[Callable[[], object], RegisteredComponent]] = []
        self._base = base
        self._is_ended = False
        self._parts = weakref.WeakValueDictionary[int, Components]()
        if base is not None:
            base._parts[id(self)] = self

    def build(self, choice: ConfiguredComponent, context: BuildContext) -> Any:
        """Build the object of a component, and check that it has the methods of its kind."""
        offer, context = choice.offer, attrs.evolve(context, builder=self.build)
        with self.blaming(offer, "cannot be built"):
            # A copy of the options: what `build` does to them changes neither the pipeline nor its
            # record.
            made = offer.component.build(copy.deepcopy(choice.options), context)
        if fault := unfit(made, offer.kind) or misdeclared(made, offer.kind):
            raise ContractError(offer, f"cannot be used: what `build` made {fault}")
        self.add(made, offer)
        if self.load_start is not None and offer.kind == "model" and choice.start is not None:
            self.load_start(made, choice, context)
        return made

    def add(self, made: Any, offer: RegisteredComponent) -> None:
        """Let an object of a component take part. One that the program gave is not closed."""
        if any(made is built() for built, _ in self._built):
            return
        try:
            self._built.append((weakref.ref(made), offer))
        except TypeError:  # a class with __slots__
            self._built.append((lambda: made, offer))
        if offer.distribution != OBJECT and callable(getattr(made, "close", None)):
            self.callback(_close, made, offer)

    @property
    def is_ended(self) -> bool:
        """Whether they are used no more."""
        return self._is_ended or (self._base is not None and self._base.is_ended)

    def end(self) -> None:
        """Use them no more: what would raises UsageError. They are closed by `close`."""
        self._is_ended = True

    def check_use(self) -> None:
        """Raise UsageError after the end."""
        if self.is_ended:
            raise UsageError("the generator is closed; load its run again")

    @contextlib.contextmanager
    def blaming(
        self, suspect: RegisteredComponent | None = None, what: str = "failed"
    ) -> Iterator[None]:
        """Raise what the block raises, or the ContractError for it.

        `suspect` is at work in it, and did it unless it was raised in the code of another. Raises
        UsageError after the end.
        """
        self.check_use()
        try:
            yield
        except FAILURES as error:
            if (explained := self._explained(error, suspect, what)) is None:
                raise
            raise explained from error

    def __exit__(self, *raised: Any) -> bool | None:
        """Close all that was built, that of the parts first, and blame what the block raised."""
        for part in [*self._parts.values()]:
            part.close()
        super().__exit__(*raised)
        if isinstance(error := raised[1], FAILURES) and (explained := self._explained(error)):
            raise explained from error
        return None

    def _explained(
        self,
        error: BaseException,
        suspect: RegisteredComponent | None = None,
        what: str = "failed",
    ) -> TextgenError | None:
        if isinstance(error, TextgenError) or error is self.spared:
            return None
        root = self._base or self
        each = [root, *(part for ref in root._parts.valuerefs() if (part := ref()) is not None)]
        known = [
            (made, offer)
            for one in each
            for ref, offer in one._built
            if (made := ref()) is not None
        ]
        if isinstance(error, BrokenContract):
            offers = [offer for made, offer in known if type(made) is type(error.culprit)]
            return ContractError(offers[-1], str(error)) if offers else None
        if _is_memory(error):
            sizes = "batch size, data.window_length, or the size of model or vocabulary"
            return DeviceError(f"out of memory; lower {sizes}")
        parts = [*known, *([] if suspect is None else [(None, suspect)])]
        foreign = [part for part in parts if part[1].distribution != OWN_DISTRIBUTION]
        offer = _blamed(error, foreign)
        if offer is None and (None, suspect) in foreign:
            offer = suspect
        return None if offer is None else ContractError(offer, f"{what}: {described(error, offer)}")


def described(error: BaseException, offer: RegisteredComponent) -> str:
    """An exception, and the last line of the component's own code that it passed."""
    return cause_of(error, packages_of(offer.component))


def blaming(method: _Method) -> _Method:
    """Makes a method of an object with `components` a boundary of them; what it yields is within it
    too.
    """

    def each(components: Components, items: Iterator[Any]) -> Iterator[Any]:
        with components.blaming():
            yield from items

    @functools.wraps(method)
    def bounded(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.components.blaming():
            made = method(self, *args, **kwargs)
        return each(self.components, made) if isinstance(made, types.GeneratorType) else made

    return bounded  # type: ignore[return-value]


def _blamed(
    error: BaseException, parts: Sequence[tuple[object, RegisteredComponent]]
) -> RegisteredComponent | None:
    """The component whose code, or object, is innermost in the traceback; None if there is none, as
    for a bug of our own.

    Of several components in one package, the object and the name of the method tell which.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        package, owner = package_of(frame), frame.f_locals.get("self", frames)
        own = [
            part for part in parts if part[0] is owner or package in packages_of(part[1].component)
        ]
        if own:
            break
    else:
        return None
    frames = [frame for frame in frames if package_of(frame) == package]
    for frame in reversed(frames):
        for made, offer in own:
            if made is not None and frame.f_locals.get("self") is made:
                return offer
    kinds = [kind_of(frame.f_code.co_name) for frame in frames]
    return next((offer for _, offer in own if offer.kind in kinds), own[-1][1])


def _is_memory(error: BaseException) -> bool:
    # torch raises its own class for GPUs, and a plain RuntimeError for the CPU.
    on_cpu = isinstance(error, RuntimeError) and (
        "alloc_cpu" in str(error) or "not enough memory" in str(error)
    )
    return on_cpu or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _close(made: Any, offer: RegisteredComponent) -> None:
    """Close a component. A failure is a warning: the work of a run is done, or has failed for
    another reason."""
    try:
        made.close()
    except FAILURES as error:
        said = f"{offer} failed in close: {described(error, offer)}"
        warnings.warn(said, PluginWarning, stacklevel=2)
