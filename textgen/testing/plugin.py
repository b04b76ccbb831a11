"""Every component of a plugin, each by the suite of its kind."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from importlib import import_module, metadata
from itertools import chain
from typing import Any, Unpack

from textgen.contracts.checks import FAILURES
from textgen.errors import TextgenError, UsageError
from textgen.messages import nearest
from textgen.plugin import discovery
from textgen.plugin.component import UNPACKAGED, Plugin, RegisteredComponent, normalized
from textgen.plugin.registry import PluginSet
from textgen.testing.commands import CommandSuite
from textgen.testing.corpora import CorpusSuite
from textgen.testing.environment import (
    TEXT,
    Subject,
    build_from_table,
    built_in_modules,
    isolated_plugins,
    required_options,
    subject,
)
from textgen.testing.models import ModelSuite
from textgen.testing.objectives import ObjectiveSuite
from textgen.testing.observers import ObserverSuite
from textgen.testing.outcomes import NO_DEFAULT, Outcome, Skip, raise_first
from textgen.testing.runs import RunSuite
from textgen.testing.samplers import SamplerSuite
from textgen.testing.strategies import StrategySuite
from textgen.testing.suite import Setting, Suite, run_checks
from textgen.testing.time_limit import TIME_LIMIT
from textgen.testing.tokenizers import TokenizerSuite
from textgen.testing.trainers import SMALL_RNN, TrainerSuite
from textgen.testing.training_data import TRAINING, is_torch_module, small_dataset

__tracebackhide__ = True  # pytest shows the test and the code of the component

Options = Mapping[str, Mapping[str, Any]]

SUITES: Mapping[str, type[Suite]] = {
    suite.kind: suite
    for suite in (
        *(CommandSuite, CorpusSuite, ModelSuite, ObjectiveSuite, ObserverSuite, RunSuite),
        *(SamplerSuite, StrategySuite, TokenizerSuite, TrainerSuite),
    )
}


def check_plugin(
    plugin: object | str | metadata.EntryPoint,
    *,
    options: Options | None = None,
    leave_out: Collection[str] = (),
    time_limit: float = TIME_LIMIT,
    **given: Unpack[Setting],
) -> tuple[Outcome, ...]:
    """Run the fitting suite for every component that a plugin offers.

    Raises the first ContractFailure.

    plugin      its module, the module's name, or its entry point
    options     tables by the component's name, or `kind:name`
    leave_out   components that are not checked, or by other means, by their names
    time_limit  seconds for each check
    given       tokenizer, corpus and start of models and trainers, as check_model takes them

    A model that does not train by gradient, a trainer that does not train such a model, and a
    tokenizer that cannot be fitted on plain text are checked with the trainers, models and corpora
    of the same plugin.

    Raises PluginError where it is no plugin, and UsageError where a component could not be checked
    and is not left out.
    """
    if isinstance(plugin, metadata.EntryPoint):
        plugin = plugin.value
    module = import_module(plugin) if isinstance(plugin, str) else plugin
    own = {name: built_in for name, (built_in, _) in built_in_modules().items()}
    names = {name for name, built_in in own.items() if built_in is module}
    plugins = isolated_plugins(*([] if names else [module]))
    offers = [
        o
        for o in plugins.offers()
        if (o.plugin.name in names if names else o.plugin.name not in own)
    ]
    if not offers:
        raise UsageError(f"{plugin} offers no component, so there is nothing to check")
    _check_names(leave_out, offers, "leave_out has")
    offers = [o for o in offers if not {o.name, f"{o.kind}:{o.name}"} & set(leave_out)]
    outcomes = check_offers(
        offers, plugins, options or {}, module=plugin, time_limit=time_limit, **given
    )
    with contextlib.closing(outcomes):
        return raise_first(_none_unchecked(outcomes))


def _none_unchecked(outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """The outcomes.

    Raises UsageError for a component that was not checked, which a test must not pass over.
    """
    for outcome in outcomes:
        if outcome.statement is None:
            raise UsageError(
                f"{outcome.component} was not checked: {outcome.reason}. Give check_plugin "
                f"options={{…}} for it, "
                "or its name in leave_out=[…]"
            )
        yield outcome


def check_offers(
    offers: Iterable[RegisteredComponent],
    plugins: PluginSet,
    options: Options,
    *,
    module: object | str | None = None,
    time_limit: float = TIME_LIMIT,
    **given: Unpack[Setting],
) -> Generator[Outcome, None, None]:
    """The outcomes of every check of every offer, each up to its first failure.

    `module` is where they come from, their entry points' if not given; `given` is what check_model
    takes.

    Raises UsageError where `options` has a name that none of their packages' components has.
    """
    offers = list(offers)
    packages = {offer.distribution for offer in offers}
    near = [offer for offer in plugins.offers() if offer.distribution in packages]
    _check_names(options, [*offers, *near], "options are given for")
    for offer in offers:
        component = offer.component
        label = f"{offer.kind} {offer.name!r} of {_owner(offer, module)}"
        table = _options_of(offer, options)
        missing = [name for name in required_options(component) if name not in table]
        if missing and offer.kind != "command" and set(table) <= set(component.options()):
            wanted = " and ".join(f"{component.name}.{name}" for name in missing)
            yield Outcome(label, None, "skipped", f"{NO_DEFAULT}{wanted}")
            continue
        source = _module_of(offer) if module is None else module
        with subject(
            offer.kind, component, table, source, plugins, label, time_limit, **given
        ) as made:
            try:
                suite = SUITES.get(offer.kind, Suite)(made, **_counterpart(made, offer, options))
            except Skip as skip:
                yield Outcome(label, None, "skipped", str(skip))
                continue
            reasons: list[str] = []
            is_checked = not suite.statements()
            for outcome in run_checks(suite.checks(), made):
                yield outcome
                is_own = outcome.statement in suite.statements()
                is_checked |= outcome.status == "failed" or (is_own and outcome.status == "ok")
                reasons += [outcome.reason] if is_own else []
            if not is_checked:
                yield Outcome(label, None, "skipped", reasons[0])


def matching(name: str, plugins: PluginSet) -> list[RegisteredComponent]:
    """The offers that a name means: those of an entry point or a distribution, or one as
    `NAME:component`.
    """
    package, _, component = name.rpartition(":")
    if not package:
        return [offer for offer in plugins.offers() if is_called(offer.plugin, name)]
    named = [offer for offer in plugins.offers() if offer.name == component]
    return [offer for offer in named if is_called(offer.plugin, package)]


def is_called(plugin: Plugin, name: str) -> bool:
    """Whether a name is that of its entry point or of its distribution."""
    return name == plugin.name or normalized(name) == plugin.distribution


def _check_names(names: Iterable[str], offers: Iterable[RegisteredComponent], what: str) -> None:
    known = {name for offer in offers for name in (offer.name, f"{offer.kind}:{offer.name}")}
    for name in names:
        if name not in known:
            hint = nearest(name, known) or f"there are {', '.join(sorted(known))}"
            raise UsageError(f"{what} {name!r}, and no component is called so; {hint}")


def _owner(offer: RegisteredComponent, module: object | str | None) -> str:
    """What failures call the package: its name, or its module's where it is no package."""
    if offer.distribution != UNPACKAGED or module is None:
        return offer.plugin.path or offer.distribution
    return module if isinstance(module, str) else getattr(module, "__name__", offer.distribution)


def _counterpart(subject: Subject, offer: RegisteredComponent, options: Options) -> dict[str, Any]:
    """What a suite needs beside its subject. Raises Skip where nothing fits."""
    if offer.kind == "tokenizer":
        return {"text": _fitting_text(subject, offer, options)}
    if offer.kind == "model":
        return {"trainer": _fitting_trainer(subject, offer, options)}
    if offer.kind == "trainer" and "model" not in subject.tables:
        return {"model": _fitting_model(subject, offer, options)}
    return {}


def _fitting_text(subject: Subject, offer: RegisteredComponent, options: Options) -> str:
    """Plain text, or the beginning of a corpus of the same package where the tokenizer refuses
    that.
    """
    corpora = (
        build_from_table(
            subject.plugins, "corpus", _table(other, options), subject.fitted_context()
        )
        for other in _neighbours(subject, offer, "corpus", options)
    )
    for text in chain([TEXT], (next(iter(corpus.read()), "")[:4000] for corpus in corpora)):
        try:
            subject.build().fit(iter([text]))
        except TextgenError:
            continue
        except FAILURES:  # the suite will say so
            return TEXT
        return text
    raise Skip(
        "it refuses plain text, and its package has no corpus that it takes; use "
        "check_tokenizer(text=...)"
    )


def _fitting_trainer(
    subject: Subject, offer: RegisteredComponent, options: Options
) -> Mapping[str, Any] | None:
    """The table of a trainer of the same package that takes the model; None where none is needed or
    known.
    """
    context = subject.fitted_context()
    try:
        model = subject.build(context)
    except TextgenError as error:
        raise Skip(f"it cannot be built here: {error}") from error
    except FAILURES:  # the suite will say so
        return None
    if is_torch_module(model):
        return None
    for other in _neighbours(subject, offer, "trainer", options):
        table = _table(other, options)
        made = build_from_table(subject.plugins, "trainer", table, context)
        if not _refusal(made, model, subject):
            return table
    return None


def _fitting_model(
    subject: Subject, offer: RegisteredComponent, options: Options
) -> Mapping[str, Any]:
    """The table of a model that the trainer takes: a small recurrent network, or one of the same
    package.
    """
    context, refusals = subject.fitted_context(), []
    for table in (
        SMALL_RNN,
        *(_table(other, options) for other in _neighbours(subject, offer, "model", options)),
    ):
        try:
            model = build_from_table(subject.plugins, "model", table, context)
        except TextgenError as error:
            refusals.append(str(error))
            continue
        try:
            trainer = subject.build(context)
        except TextgenError as error:
            raise Skip(f"it cannot be built here: {error}") from error
        except FAILURES:  # the suite will say so
            return SMALL_RNN
        if not (refusal := _refusal(trainer, model, subject)):
            return table
        refusals.append(refusal)
    raise Skip(
        f"it trains neither a small rnn nor a model of its package: {'; '.join(refusals)}; give a "
        "run to start from, or use check_trainer(model=...)"
    )


def _refusal(trainer: Any, model: Any, subject: Subject) -> str:
    """Why a trainer does not train a model; nothing if it does."""
    try:
        next(iter(trainer.train(model, small_dataset(subject), TRAINING)), None)
    except TextgenError as error:
        return str(error) or type(error).__name__
    except FAILURES:  # the suite will say so
        pass
    return ""


def _neighbours(
    subject: Subject, offer: RegisteredComponent, kind: str, options: Options
) -> Sequence[RegisteredComponent]:
    """The components of the same package whose options are all known."""
    return [
        other
        for other in subject.plugins.offers(kind)
        if other.distribution == offer.distribution
        and set(required_options(other.component)) <= set(_options_of(other, options))
    ]


def _table(offer: RegisteredComponent, options: Options) -> dict[str, Any]:
    """A component with the options that it is given, as a pipeline has it."""
    return {"type": offer.qualified_name, **_options_of(offer, options)}


def _options_of(offer: RegisteredComponent, options: Options) -> dict[str, Any]:
    """The options that are given under `kind:name` or the name."""
    return dict(options.get(f"{offer.kind}:{offer.name}") or options.get(offer.name) or {})


def _module_of(offer: RegisteredComponent) -> str | None:
    """The module of the offer's entry point, or its file; None for what a program registered."""
    entry_point = discovery.installed().get(offer.plugin)
    return entry_point.module if entry_point else offer.plugin.path or None
