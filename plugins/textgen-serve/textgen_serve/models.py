"""The runs that are served: found by name, and loaded again when they are replaced on disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import attrs

from textgen import (
    Address,
    Engine,
    Generator,
    PluginSet,
    RegisteredComponent,
    RunError,
    TextgenError,
    UsageError,
    summarize,
)
from textgen_serve.errors import ApiError, logger, without_folders
from textgen_serve.metrics import Metrics

_WATCH_SECONDS: Final = 1.0  # seconds between two looks at the run directories
_KEPT_RUNS: Final = 3  # further runs that stay loaded
_Stamp = tuple[int, int, int] | None


@attrs.define(eq=False)
class _Loaded:
    """A run directory that is loaded.

    generator  replaced as a whole: a request keeps the one that it began with
    stamp      of run.json when it was last looked at
    """

    path: Path
    generator: Generator
    stamp: _Stamp


@attrs.frozen(eq=False)
class ServedRun:
    """A run under the name by which clients ask for it."""

    name: str
    created: int
    loaded: _Loaded

    @property
    def generator(self) -> Generator:
        """The generator of the run as it is now."""
        return self.loaded.generator

    def card(self) -> dict[str, Any]:
        """The entry of GET /v1/models."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "textgen",
            "textgen": self._facts(),
        }

    def full_card(self, options: Mapping[str, SamplingOption]) -> dict[str, Any]:
        """The entry of GET /v1/models/{id}: with the run's loss curve, and the options of
        samplers.
        """
        card, summary = self.card(), None
        with contextlib.suppress(RunError):  # its folder may have moved
            summary = summarize(self.loaded.path)
        chain = {table["type"]: table for table in self.generator.tables.get("sampler", [])}
        card["textgen"] |= {
            "parameters": summary and summary.parameters,
            "best_loss": summary and summary.best_loss,
            "metrics": summary.metrics() if summary else [],
            "sampling_options": {
                name: {**attrs.asdict(each), "value": chain.get(each.sampler, {}).get(each.key)}
                for name, each in options.items()
            },
        }
        return card

    def _facts(self) -> dict[str, Any]:
        generator = self.generator
        tables = generator.tables
        return {
            "checksum": generator.model_id,
            "model": tables.get("model", {}).get("type"),
            "tokenizer": tables.get("tokenizer", {}).get("type"),
            "vocab_size": generator.tokenizer.vocab_size,
            "end_id": end_id(generator),
            "seed": generator.seed,
            "generate": generator.defaults,
            "sampler": tables.get("sampler", []),
        }


@attrs.frozen
class SamplingOption:
    """An option of requests that a sampler takes.

    default  its value if the sampler is in the chain and nothing is given; None where it has to be
             given
    """

    sampler: str
    key: str
    default: Any
    help: str


def sampling_options(plugins: PluginSet, kind: str = "sampler") -> dict[str, SamplingOption]:
    """The options of all samplers, or strategies, but those that are files, addresses or runs: a
    client must not choose what is read.
    """
    made = {}
    for offer in plugins.offers(kind):
        fields = attrs.fields_dict(attrs.resolve_types(offer.component.config))
        for name, key in offer.component.arguments().items():
            field, default = fields[key], fields[key].default
            is_sole = isinstance(plugins.sampling_option(name), RegisteredComponent)
            types = {field.type, *get_args(field.type)}
            if is_sole and not types & {Path, Address} and not field.metadata.get("kind"):
                plain = default if isinstance(default, (int, float, str, tuple)) else None
                made[name] = SamplingOption(offer.name, key, plain, field.metadata["help"])
    return made


class Runs:
    """The served runs by name. One directory is loaded once, whatever names it has.

    more   finds further runs, which are loaded when they are asked for; the last few stay
    """

    def __init__(
        self,
        runs: Mapping[str, Path],
        plugins: PluginSet,
        metrics: Metrics,
        device: str = "auto",
        more: Callable[[], Mapping[str, Path]] = dict,
    ) -> None:
        self.options = sampling_options(plugins)
        self._of_strategies = {"strategy", *sampling_options(plugins, "strategy")}
        self.parameters = {*self.options, *self._of_strategies}
        self._engine, self._device, self._metrics = Engine(plugins), device, metrics
        self._loaded: dict[Path, _Loaded] = {}
        self._runs: dict[str, ServedRun] = {}
        self._more, self._opened, self._opening = more, list[str](), asyncio.Lock()
        for name, path in runs.items():
            self._open(name, path)

    def _open(self, name: str, path: Path) -> None:
        if (run := self._loaded.get(path)) is None:
            stamp, generator = _stamp(path), self.load(path)
            folder = generator.path if stamp is None and generator.path else path
            run = self._loaded[path] = _Loaded(folder, generator, stamp or _stamp(folder))
        self._runs[name] = ServedRun(name, run.stamp[0] // 10**9 if run.stamp else 0, run)

    def __iter__(self) -> Iterator[ServedRun]:
        return iter([*self._runs.values()])

    def load(self, run: str | Path) -> Generator:
        """The generator of a run that is not served, on the device of the others. Raises what
        `textgen.load` raises.
        """
        return self._engine.load(str(run), device=self._device)

    async def find(self, name: Any) -> ServedRun:
        """The run of a name; the only one where it is omitted or empty. Raises ApiError."""
        if name is None or name == "":
            names = await self.names()
            if len(names) != 1:
                cause = f"name one of the models: {', '.join(names)}"
                raise ApiError(400, cause, param="model")
            name = names[0]
        if not isinstance(name, str):
            raise ApiError(400, "model must be a string", param="model")
        if name not in self._runs:
            async with self._opening:
                await self._find_more(name)
        if name not in self._runs:
            there = ", ".join(await self.names())
            message = f"no model is called {name!r}; there are {there}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return self._runs[name]

    def lanes(self, run: ServedRun, options: Mapping[str, Any]) -> int:
        """The lanes of a text with these options. No sampler of a request is built for it."""
        given = {name: options[name] for name in self._of_strategies & options.keys()}
        return run.generator.lanes(**given)

    async def _find_more(self, name: str) -> None:
        """Load a further run, in place of the one that was loaded longest ago. Raises ApiError."""
        path = (await asyncio.to_thread(self._more)).get(name)
        if path is None or name in self._runs:
            return
        try:
            await asyncio.to_thread(self._open, name, path)
        except TextgenError as error:
            logger.warning("%s", error)
            cause = without_folders(str(error), path)
            raise ApiError(409, f"{name} cannot be loaded: {cause}", param="model") from error
        self._opened.append(name)
        for gone in self._opened[:-_KEPT_RUNS]:
            self.close(gone)

    async def names(self) -> list[str]:
        """Names of models that are loaded, and of those that would be."""
        return [*dict.fromkeys([*self._runs, *await asyncio.to_thread(self._more)])]

    def close(self, name: str) -> None:
        """Forget a further run, which is loaded again when it is asked for."""
        if name in self._opened:
            self._opened.remove(name)
            run = self._runs.pop(name)
            self._loaded = {p: each for p, each in self._loaded.items() if each is not run.loaded}

    async def watch(self) -> None:
        """Load runs again that are replaced on disk, until the task is cancelled.

        One that fails, or whose folder goes away, stays as it is.
        """
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            for run in [*self._loaded.values()]:
                if (stamp := _stamp(run.path)) != run.stamp:
                    run.stamp = stamp
                    outcome = "removed" if stamp is None else await self._load_again(run)
                    for served in self._runs.values():
                        if served.generator is run.generator:
                            self._metrics.changes.labels(served.name, outcome).inc()
                    if stamp is None:
                        logger.warning("%s is gone; its model is still served", run.path)

    async def _load_again(self, run: _Loaded) -> str:
        """Load a run that was replaced; what came of it."""
        try:
            run.generator = await asyncio.to_thread(self.load, run.path)
        except TextgenError as error:
            logger.warning("%s was replaced and is not loaded: %s", run.path, error)
            return "failed"
        logger.info("%s was replaced, and is loaded: %s", run.path, run.generator.model_id[:16])
        return "loaded"


def end_id(generator: Generator) -> int | None:
    """The id for the end of a document; None if the tokenizer has none."""
    return getattr(generator.tokenizer, "end_id", None)


def named_runs(arguments: Iterable[str]) -> dict[str, Path]:
    """Runs by name from arguments `RUN` and `NAME=RUN`; the folder of a RUN may have "=" in its
    name. Raises UsageError.
    """
    runs: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or Path(argument).exists():
            name, path = "", argument
        name = name or Path(path).absolute().name
        if name in runs:
            raise UsageError(f"two runs are called {name!r}; give one a name, as in other={path}")
        folder = Path(path).absolute()
        runs[name] = folder if folder.exists() else Path(path)  # which a plugin may offer
    return runs


def _stamp(path: Path) -> _Stamp:
    """A value that changes when a run is published; None where none is."""
    try:
        facts = (path / "run.json").stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino, facts.st_size
