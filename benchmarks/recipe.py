"""What each part of the recipe of `textgen init` is worth: the network of its pipeline, trained without the part.

    python benchmarks/recipe.py TEXT... [--characters 1e6] [--seeds 3] [--letters] [--only NAME]

Prints a Markdown table: the best loss of the held-out tenth in nats per character, mean and spread over the seeds, and
the difference to the recipe. Every run reads the same number of characters, so the table does not depend on how busy
the machine is. The trainers `muon` and `averaged` and the model `orthogonal` are made here, and no part of textgen.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import torch

import textgen
from textgen import BuildContext, Component, PluginSet, hookimpl
from textgen.gradient import GradientTrainer, Parameters, constant, warmup_stable_decay
from textgen_builtins.models.rnn.config import RNNConfig
from textgen_builtins.models.rnn.torch_model import TorchRNN
from textgen_builtins.trainers.config import AdamWConfig

RECIPE: dict[str, Any] = {
    "device": "cpu",
    "data": {"window_length": 64},
    "model": {
        "type": "rnn",
        "cell": "lstm",
        "hidden_size": 256,
        "embedding_size": 128,
        "dropout": 0.25,
        "embedding_dropout": 0.1,
    },
    "trainer": {
        "type": "adamw",
        "order": "streams",
        "batch_size": 32,
        "learning_rate": 0.012,
        "warmup_steps": 50,
        "weight_decay": 0.05,
        "compute": "bfloat16",
    },
    "generate": {"max_new_tokens": 1},
}


def of_type(part: str, name: str) -> dict[str, Any]:
    """Another type of model or trainer, with the options of the recipe's: another type drops them."""
    return {f"{part}.{key}": value for key, value in RECIPE[part].items()} | {f"{part}.type": name}


VARIANTS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "one-hot tokens, no embedding": {"model.embedding_size": 0},
    "orthogonal matrices": of_type("model", "orthogonal"),
    "orthogonal matrices, forget bias of one": of_type("model", "orthogonal")
    | {"model.forget_bias": 1.0},
    "no dropout": {"model.dropout": 0.0, "model.embedding_dropout": 0.0},
    "dropout of 0.1, none of the input": {"model.dropout": 0.1, "model.embedding_dropout": 0.0},
    "weight drop of 0.3 besides": {"model.weight_drop": 0.3},
    "weight decay 0": {"trainer.weight_decay": 0.0},
    "weight decay 0.5": {"trainer.weight_decay": 0.5},
    "learning rate 0.004": {"trainer.learning_rate": 0.004},
    "learning rate 0.008": {"trainer.learning_rate": 0.008},
    "learning rate 0.018": {"trainer.learning_rate": 0.018},
    "no warm-up": {"trainer.warmup_steps": 0},
    "16 streams": {"trainer.batch_size": 16},
    "64 streams": {"trainer.batch_size": 64},
    "averaged weights in place of the decay": of_type("trainer", "averaged"),
    "averaged weights and the decay": of_type("trainer", "averaged") | {"trainer.and_decay": True},
    "Muon for the matrices": of_type("trainer", "muon"),
    "a GRU": {"model.cell": "gru"},
}


@attrs.frozen(kw_only=True)
class OrthogonalConfig(RNNConfig):
    """Those of `rnn`."""

    forget_bias: float = 0.0


def orthogonal(config: OrthogonalConfig, context: BuildContext) -> TorchRNN:
    """An LSTM of recurrent matrices that are orthogonal at first (Saxe and others, 2014), and no biases."""
    model = TorchRNN.create(config, context.vocab_size, seed=context.seed, device=context.device)
    generator, size = torch.Generator().manual_seed(context.seed), config.hidden_size
    with torch.no_grad():
        for name, values in model.layers.named_parameters():
            if "weight_hh" in name:
                for gate in values.split(size):
                    torch.nn.init.orthogonal_(gate, generator=generator)
            elif "bias" in name:
                values.zero_()
        for name, values in model.layers.named_parameters():
            if "bias_ih" in name:
                values[size : 2 * size] = config.forget_bias
    return model


@attrs.frozen(kw_only=True)
class Config(AdamWConfig):
    """Those of `adamw`."""

    and_decay: bool = False
    average: float = 0.98


class Averaged(torch.optim.AdamW):
    """AdamW whose last step leaves the exponential moving average of the weights of all steps behind."""

    def __init__(self, parameters: Parameters, steps: int, decay: float, **options: Any) -> None:
        super().__init__(parameters, **options)
        self.mean = [p.detach().clone() for p in parameters]
        self.left, self.keep = steps, decay

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        own = [p for group in self.param_groups for p in group["params"]]
        torch._foreach_lerp_(self.mean, own, 1 - self.keep)
        self.left -= 1
        if not self.left:
            torch._foreach_copy_(own, self.mean)


def averaged(config: Config, context: BuildContext) -> GradientTrainer:
    """AdamW, evaluated once, at the end, with averaged weights."""
    steps, kept = int(config.length.removesuffix(" steps")), config.average
    options = {
        "lr": config.learning_rate,
        "weight_decay": config.weight_decay,
        "betas": config.betas,
    }
    schedule = (
        warmup_stable_decay(warmup=config.warmup_steps, decay=0.5) if config.and_decay else constant
    )
    return GradientTrainer(config, lambda p: Averaged(p, steps, kept, **options), schedule)


def muon(config: Config, context: BuildContext) -> GradientTrainer:
    """Muon for matrices (Jordan, 2024, in torch's version), AdamW for all else."""

    def optimizers(parameters: Parameters) -> list[torch.optim.Optimizer]:
        rest = parameters.of_role("embedding", "head", "vector")
        adamw = torch.optim.AdamW(
            rest, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )
        matrices = torch.optim.Muon(
            parameters.of_role("matrix"), lr=0.02, weight_decay=config.weight_decay
        )
        return [matrices, adamw]

    return GradientTrainer(
        config, optimizers, warmup_stable_decay(warmup=config.warmup_steps, decay=0.5)
    )


@hookimpl
def textgen_models() -> list[Component]:
    """Offer `orthogonal`."""
    return [Component("orthogonal", OrthogonalConfig, orthogonal)]


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer both."""
    return [Component("averaged", Config, averaged), Component("muon", Config, muon)]


def main() -> None:
    """Print a table for each text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--characters", type=float, default=1e6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--letters", action="store_true")
    parser.add_argument("--only", action="append", help="variants to try, besides the recipe")
    given = parser.parse_args()
    plugins = PluginSet.discover()
    offers = SimpleNamespace(textgen_models=textgen_models, textgen_trainers=textgen_trainers)
    plugins.register(offers, "recipe")
    engine = textgen.Engine(plugins)
    for text in given.texts:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "text.txt")
            content = text.read_text(encoding="utf-8-sig")
            source.write_text(
                re.sub("[^a-z]+", " ", content.lower()) if given.letters else content,
                encoding="utf-8",
            )
            print(
                f"\n{text.stem}, {given.characters:,.0f} characters read | loss | difference\n--- | --- | ---"
            )
            show(engine, source, Path(folder), given)


def show(engine: textgen.Engine, source: Path, folder: Path, given: argparse.Namespace) -> None:
    """The rows of one text."""
    base = None
    for name, changes in VARIANTS.items():
        if given.only and name not in ("the recipe", *given.only):
            continue
        losses = [
            one_loss(engine, source, folder / f"{name}-{seed}", changes, seed, given)
            for seed in range(given.seeds)
        ]
        mean = statistics.mean(losses)
        base = mean if base is None else base
        print(
            f"{name} | {mean:.3f} ({min(losses):.3f} to {max(losses):.3f}) | {mean - base:+.3f}",
            flush=True,
        )


def one_loss(
    engine: textgen.Engine,
    source: Path,
    output: Path,
    changes: dict[str, Any],
    seed: int,
    given: argparse.Namespace,
) -> float:
    """The best validation loss of a run."""
    batch = changes.get("trainer.batch_size", RECIPE["trainer"]["batch_size"])
    steps = int(given.characters / batch / RECIPE["data"]["window_length"])
    once = {"trainer.evaluate_every": steps} if changes.get("trainer.type") == "averaged" else {}
    tables = RECIPE | {
        "corpus": {"type": "file", "path": str(source)},
        "tokenizer": {"type": "char"},
        "seed": seed,
    }
    tables["observer"] = [{"type": "metrics"}]
    run = engine.run(tables, {"trainer.length": f"{steps} steps", **once, **changes}, output=output)
    assert run.path is not None
    rows = [
        json.loads(line)
        for line in (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return min(float(row["validation_loss"]) for row in rows)


if __name__ == "__main__":
    main()
