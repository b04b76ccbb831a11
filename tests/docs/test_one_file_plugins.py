"""The plugins in one file of the docs work as they stand."""

import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
from components import engine_with

import textgen
from textgen import CorpusError, UsageError, summarize

DOCS = Path(__file__).parents[2] / "docs"
PAGES = "\n".join(
    (DOCS / name).read_text("utf-8") for name in ("writing-plugins.md", "plugin-recipes.md")
)


def example(name):
    """The file of this name on the pages."""
    (text,) = re.findall(rf"^```python\n# file: {name}\n(.*?)^```", PAGES, re.MULTILINE | re.DOTALL)
    return str(text)


@pytest.fixture
def command(tmp_path, textgen):
    """Run a command with a plugin in one file: `command("patience.py", text, "run", "p.toml")`."""

    def run(name, text, *arguments):
        (tmp_path / name).write_text(text)
        done = textgen("--plugin", name, *arguments, cwd=tmp_path)
        assert done.code == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def train(command, tiny_pipeline, write_pipeline):
    """Run a pipeline with one: `train("patience.py", text, model={"type": "rnn"})`."""

    def run(name, text, **tables):
        pipeline = write_pipeline({**tiny_pipeline(text="abcd" * 300 + "dcba" * 30), **tables})
        return command(name, text, "run", pipeline)

    return run


def test_early_stopping(tmp_path, train):
    text = example("patience.py")
    done = train(
        "patience.py",
        text,
        data={"window_length": 16, "validation": 0.09},
        trainer={"type": "adamw", "length": "40 epochs", "learning_rate": 0.05},
        observer=[{"type": "patience", "evaluations": 2}],
    )
    assert re.search(r"patience stopped it at step \d+: no lower loss in 2", done.stderr)
    assert json.loads((tmp_path / "run/run.json").read_text())["evaluations"] < 40


def test_an_optimizer_as_a_trainer(tmp_path, train):
    text = example("adagrad.py")
    trainer = {"type": "adagrad", "length": "30 steps", "order": "streams", "batch_size": 4}
    train("adagrad.py", text, trainer=trainer, observer=[{"type": "metrics"}])
    losses = [row["training_loss"] for row in summarize(tmp_path / "run").metrics()]
    assert losses[-1] < losses[0] / 2


def with_decoder(text):
    """mingru.py with the decoder that the page adds."""
    (method,) = re.findall(r"^```python\n( +def decoder.*?)^```", PAGES, re.MULTILINE | re.DOTALL)
    (decoder,) = re.findall(
        r"^```python\n(import numpy as np\n+class MinGRUDecoder.*?)^```",
        PAGES,
        re.MULTILINE | re.DOTALL,
    )
    before, forward, after = text.partition("        def forward")
    return f"{before}{method}\n{forward}{after}\n\n{decoder}"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["module", "decoder"])
def test_a_module_as_a_model(part, tmp_path, command, train):
    text = example("mingru.py")
    text = text if part == "module" else with_decoder(text)
    trainer = {"type": "adamw", "length": "60 steps", "learning_rate": 0.02, "batch_size": 8}
    train("mingru.py", text, model={"type": "mingru"}, trainer=trainer)
    generate = ("generate", tmp_path / "run", "-p", "ab", "--temperature", "0")
    assert "cdabcdabcd" in command("mingru.py", text, *generate).stdout
    command("mingru.py", text, "plugins", "check", "mingru")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steadfast", 0.6),
        pytest.param("surprising", 0.6, marks=pytest.mark.slow),
        pytest.param("coherent", 200.0, marks=pytest.mark.slow),
    ],
)
def test_samplers_with_state_with_chance_and_with_the_model(
    tmp_path,
    command,
    generator,
    finished_run,
    name,
    value,
):
    """They keep the contract, and change a text by the option that each has."""
    text = example(f"{name}.py")
    command(f"{name}.py", text, "plugins", "check", name)
    engine = engine_with(tmp_path / f"{name}.py", text)
    offer = engine.plugins().find("sampler", name)
    (option,) = offer.component.arguments()
    with engine.load(finished_run) as mine:
        changed = mine.generate("the ", max_new_tokens=60, **{option: value})
    assert changed.text != generator.generate("the ", max_new_tokens=60).text


def test_a_corpus_of_documents(tmp_path, command, tiny_pipeline):
    """A model ends its texts, and what a user can mend is said with file and line."""
    code, texts = example("json_lines.py"), tmp_path / "texts.jsonl"
    engine = engine_with(tmp_path / "json_lines.py", code)
    corpus = {"type": "json-lines", "path": str(texts)}
    for lines, said in (
        ("", "the texts cannot be read: [Errno 2] No such file or directory: '{}'"),
        ("{}\n", "{}:1: KeyError('text'); each line is an object with a text"),
        ('{"text": "salt"}\nsalt\n', "{}:2: JSONDecodeError("),
    ):
        if lines:
            texts.write_text(lines)
        with pytest.raises(CorpusError) as caught:
            list(engine.read_corpus(corpus))
        assert said.format(texts) in str(caught.value)
    texts.write_text('{"text": "salt"}\n' * 200)
    option = f"json-lines.path={texts}"
    command("json_lines.py", code, "plugins", "check", "json_lines", "--set", option)
    tables = tiny_pipeline(
        model={"hidden_size": 16}, sampler=[{"type": "greedy"}], generate={"max_new_tokens": 100}
    )
    trainer = {"type": "adamw", "length": "10 epochs", "batch_size": 4, "learning_rate": 0.02}
    (made,) = engine.run({**tables, "corpus": corpus, "trainer": trainer}).generations
    assert (made.text, made.finish_reason) == ("salt", "end")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("utf8", "tokenizer-.*"),
        ("contrastive", "strategy-texts"),
        ("smoothing", "objective-falls"),
    ],
)
def test_a_tokenizer_a_strategy_and_an_objective(command, name, last):
    done = command(f"{name}.py", example(f"{name}.py"), "plugins", "check", name)
    assert re.search(f"ok .*: {last}", done.stdout)


def of_documents(tmp_path, texts, **tables):
    """A pipeline for lines, each of them a document."""
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    return {
        "device": "cpu",
        "corpus": {"type": "file", "path": str(tmp_path / "lines.txt"), "documents": "line"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "cell": "gru", "hidden_size": 24},
        "trainer": {"type": "adamw", "length": "60 steps", "batch_size": 8, "learning_rate": 0.02},
        "observer": [{"type": "metrics"}],
        **tables,
    }


def with_objective(tables, **options):
    return {**tables, "trainer": {**tables["trainer"], "objective": options}}


@pytest.mark.slow
def test_distillation_learns_from_another_run(tmp_path, command):
    text, path = example("distilled.py"), tmp_path / "teacher"
    tables = of_documents(tmp_path, ["the clock struck nine"] * 60)
    engine = engine_with(tmp_path / "distilled.py", text)
    teacher = engine.run(tables, output=path)
    given = ("--set", f"distilled.teacher={path}", "--start", str(path))
    command("distilled.py", text, "plugins", "check", "distilled", *given)
    other = {**tables, "corpus": {**tables["corpus"], "path": str(tmp_path / "other.txt")}}
    (tmp_path / "other.txt").write_text("the rock\n" * 200)
    alike = {**other, "tokenizer": {"start": str(path), "type": "char"}}
    taught = with_objective(alike, type="distilled", teacher=str(path), share=1.0)
    score = [
        engine.run(each, output=tmp_path / str(i)).generator.score("the clock").loss
        for i, each in enumerate((alike, taught))
    ]
    assert score[1] < score[0], "it has met no clock, and its teacher has"
    assert teacher.generator.score("the clock").loss < score[1]
    with pytest.raises(UsageError):
        engine.run({**taught, "tokenizer": {"type": "char"}}, output=tmp_path / "2")


@pytest.mark.slow
def test_answers_are_learnt_and_prompts_are_not(tmp_path):
    drawn = random.Random(1)
    prompts = ["".join(drawn.choices("abcdefgh", k=6)) for _ in range(400)]
    tables = of_documents(tmp_path, [f"{prompt}\t{prompt[0]}." for prompt in prompts])
    engine = engine_with(tmp_path / "answers.py", example("answers.py"))
    run = engine.run(with_objective(tables, type="answers"), output=tmp_path / "run")
    last = run.history[-1]
    plain = engine.run(tables, output=tmp_path / "plain").history[-1]
    assert last["objective"] < 1.2 < plain["validation_loss"] < last["validation_loss"] - 0.3
    with pytest.raises(CorpusError):
        engine.run(with_objective(tables, type="answers", mark="?"), output=tmp_path / "none")


@pytest.mark.slow
def test_preferences_raise_the_better_of_two_texts(tmp_path):
    texts = [text for n in range(80) for text in (f"{n} cats sat.", f"{n} cats ran!")]
    tables = of_documents(tmp_path, texts)
    engine = engine_with(tmp_path / "preferred.py", example("preferred.py"))
    base = tmp_path / "base"
    before = engine.run(tables, output=base).generator
    start = {"start": str(base)}
    tuned = {**tables, "model": start, "tokenizer": {"type": "char", **start}}
    tuned = with_objective(tuned, type="preferred", reference=str(base), beta=0.5)
    run = engine.run(tuned, {"trainer.length": "20 steps"}, output=tmp_path / "run")
    assert run.history[-1]["objective"] < 0.3 < math.log(2)
    gains = [
        each.score("7 cats ran!").loss - each.score("7 cats sat.").loss
        for each in (before, run.generator)
    ]
    assert gains[1] > gains[0] + 0.2


def test_a_metric(tmp_path, train, command):
    text = example("rare.py")
    trainer = {"type": "adamw", "length": "20 epochs", "learning_rate": 0.05}
    train("rare.py", text, trainer=trainer)
    (tmp_path / "text.txt").write_text("abcdabcd" * 20 + "adadbbaa")
    given, table = ("evaluate", "run", "text.txt", "--metric"), '{ type = "rare" }'
    value = json.loads(command("rare.py", text, *given, table, "--json").stdout)
    scores = textgen.load(tmp_path / "run").score_tokens((tmp_path / "text.txt").read_text())
    logprobs = np.concatenate([block.logprobs for block in scores])
    share = float((logprobs[np.isfinite(logprobs)] < math.log(0.1)).mean())
    assert 0 < share < 1
    assert value["metrics"] == {"rare": share}
    assert f"rare{share:22.4f}" in command("rare.py", text, *given, "rare").stdout
