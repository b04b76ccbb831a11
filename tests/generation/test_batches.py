"""Many texts at once: each is what it would be alone, whatever happens to the others."""

import asyncio
import gc
import itertools
import time
from functools import partial

import pytest
from prompts import PROMPTS
from raising import raises
from watching import text_of, watched

from textgen import ContractError, PromptError, UsageError, load
from textgen.generation import generator as generators
from textgen.generation.scheduling import scheduler

OPTIONS = [
    {"max_new_tokens": 20},
    {"max_new_tokens": 33, "temperature": 0.7, "logprobs": 2},
    {"max_new_tokens": 25, "temperature": 0.7, "top_k": 3, "seed": 5},
    {"max_new_tokens": 40, "temperature": 0, "echo": True, "logprobs": 1},
    {"max_new_tokens": 40, "stop": ["e", " th"], "temperature": 1.2},
    {"max_new_tokens": 30, "repetition_penalty": 1.3, "min_new_tokens": 5, "stop_tokens": [1, 2]},
    {"max_new_tokens": 10, "dry_multiplier": 3},
    {"max_new_tokens": 40, "temperature": 0},
    {"max_new_tokens": 0},
]


def request(number):
    prompt = PROMPTS[number % len(PROMPTS)]
    return {"prompt": prompt, **OPTIONS[number % len(OPTIONS)]}


def test_rows_join_and_leave_a_running_batch_and_each_text_is_as_if_alone(generator):
    """Each with options of its own, and an index by its place, before those of all."""
    shared = {"max_new_tokens": 25, "temperature": 0.9, "seed": 3}
    own = [
        *map(request, range(72)),
        {"prompt": "a", "index": 4, "stop": " ", "max_new_tokens": None},
    ]
    made = list(generator.generate_many(["the ", *own], batch_size=3, **shared))
    every = enumerate([{"prompt": "the "}, *own])
    assert made == [generator.generate(**{"index": i, **shared, **each}) for i, each in every]


@pytest.mark.parametrize("length", [1, 4, 5, 13, 150])
def test_greedy_in_chunks_is_greedy_step_by_step(lively, length):
    """A bias far below rounding changes no choice, but goes through the samplers token by token."""
    options = {"max_new_tokens": length, "temperature": 0}
    steps = [lively.generate(prompt, logit_bias={"t": 1e-30}, **options) for prompt in PROMPTS]
    assert [lively.generate(prompt, **options) for prompt in PROMPTS] == steps
    many = [{"prompt": prompt, "index": 0, **options} for prompt in PROMPTS]
    assert list(lively.generate_many(many, batch_size=3)) == steps


def test_rows_of_dropped_streams_leave_the_batch_and_change_no_other_text(finished_run):
    """The sampler sees how many rows there are."""
    watcher, generator = watched(finished_run)

    async def read():
        streams = {
            index: await generator.astream("the ", index=index, max_new_tokens=None)
            for index in range(10)
        }
        texts = dict.fromkeys(streams, "")
        for rows, dropped in ((10, range(6)), (4, range(6, 10))):
            while not watcher.sizes or watcher.sizes[-1] != rows:
                for index, stream in streams.items():
                    texts[index] += await anext(stream)
            for index in dropped:
                await streams.pop(index).aclose()
        return texts

    for index, text in asyncio.run(asyncio.wait_for(read(), 60)).items():
        assert text == generator.generate("the ", index=index, max_new_tokens=len(text)).text


@pytest.mark.parametrize(
    "ways",
    [[{}], [{}, {"beams": 2}, {"negative_prompt": "and "}, {"best_of": 2, "logprobs": 1}]],
)
def test_texts_of_one_client_pause_for_those_of_another_and_are_the_same(
    finished_run, monkeypatch, ways
):
    monkeypatch.setattr(generators, "BATCH_SIZE", 4)
    watcher, generator = watched(finished_run, closed=True)
    each_way, ended = itertools.cycle(ways), []
    many = [
        {"prompt": "the ", "index": i, **next(each_way), "max_new_tokens": 90} for i in range(12)
    ]

    async def make(each, client):
        made = await generator.agenerate(**each, cache_salt=f"{client}\n")
        ended.append(client)
        return made

    async def together():
        tasks = [asyncio.create_task(make(each, "many")) for each in many]
        await asyncio.to_thread(watcher.begun.wait, 60)
        tasks.append(asyncio.create_task(make({"prompt": "a", "max_new_tokens": 5}, "few")))
        await asyncio.sleep(0.02)
        watcher.gate.set()
        return await asyncio.gather(*tasks)

    *made, few = asyncio.run(asyncio.wait_for(together(), 60))
    assert ended.index("few") < 8  # before those that waited: those beside it may end first
    assert max(watcher.sizes) <= 4
    assert made == [generator.generate(**each) for each in many]
    assert len(few.tokens) == 5


@pytest.mark.parametrize("clients", [["greedy", "few"], ["", ""]], ids=["keys", "no-keys"])
def test_a_text_that_takes_all_lanes_leaves_time_to_others(finished_run, monkeypatch, clients):
    monkeypatch.setattr(generators, "BATCH_SIZE", 4)
    monkeypatch.setattr(scheduler, "_TURN_SECONDS", 0.05)
    watcher, generator = watched(finished_run, closed=True)
    greedy, few = clients
    wide = {"prompt": "the ", "max_new_tokens": 90}

    async def make(**options):
        return await generator.agenerate(**options)

    async def together():
        salt = f"{greedy}\n"
        whole = asyncio.create_task(make(**wide, best_of=4, cache_salt=salt))
        endless = [
            asyncio.create_task(
                make(**wide | {"max_new_tokens": 100_000}, **options, cache_salt=salt)
            )
            for options in [{"best_of": 4}, *[{"index": index} for index in range(4)]]
        ]
        await asyncio.to_thread(watcher.begun.wait, 60)
        watcher.gate.set()
        short = {"prompt": "a", "max_new_tokens": 5, "cache_salt": f"{few}\n"}
        made = [await make(**short, index=index) for index in range(3)]
        made += [await make(**short, best_of=4), await whole]
        assert not any(task.done() for task in endless)
        for task in endless:
            task.cancel()
        await asyncio.gather(*endless, return_exceptions=True)
        return made

    made = asyncio.run(asyncio.wait_for(together(), 60))
    assert made[:3] == [generator.generate("a", index=i, max_new_tokens=5) for i in range(3)]
    assert made[3] == generator.generate("a", best_of=4, max_new_tokens=5)
    assert made[4] == generator.generate(**wide, best_of=4)


def test_a_text_with_few_lanes_waits_for_none_that_takes_all(finished_run, monkeypatch):
    monkeypatch.setattr(generators, "BATCH_SIZE", 4)
    monkeypatch.setattr(scheduler, "_TURN_SECONDS", float("inf"))  # so that no text pauses
    watcher, generator = watched(finished_run, closed=True)
    looks = itertools.count()  # at a text that waits as well

    async def together():
        wide = asyncio.create_task(generator.agenerate("the ", best_of=4, max_new_tokens=100_000))
        await asyncio.to_thread(watcher.begun.wait, 60)
        watcher.gate.set()
        made = await generator.agenerate("a", max_new_tokens=5, cancelled=lambda: next(looks) > 50)
        wide.cancel()
        await asyncio.gather(wide, return_exceptions=True)
        return made

    made = asyncio.run(asyncio.wait_for(together(), 60))
    assert made == generator.generate("a", max_new_tokens=5)


def test_no_more_lanes_than_the_batch_size_run_at_once_in_an_event_loop(finished_run, monkeypatch):
    monkeypatch.setattr(generators, "BATCH_SIZE", 4)
    monkeypatch.setattr(scheduler, "_TURN_SECONDS", float("inf"))  # so that no text pauses
    steps = []  # by the first letter of the text, which tells the texts apart

    def note(logits, history):
        steps.append(int(history.tokens(0)[0]))
        return logits

    generator = load(finished_run, sampler=note)

    async def together():
        return await asyncio.gather(
            *(generator.agenerate(letter, best_of=2, max_new_tokens=20) for letter in "theand")
        )

    made = asyncio.run(asyncio.wait_for(together(), 60))
    assert [len(each.tokens) for each in made] == [20] * 6
    first = {letter: steps.index(letter) for letter in steps}
    last = {letter: step for step, letter in enumerate(steps)}
    assert len(first) == 6
    for step in range(len(steps)):
        assert sum(first[letter] <= step <= last[letter] for letter in first) <= 2


@pytest.mark.parametrize("lanes", [3, 16])
def test_no_more_lanes_than_the_batch_size_run_at_once(generator, lanes):
    running = []  # the texts, by their steps

    def prompt(number):
        return {"prompt": "the ", "cancelled": lambda: running.append(number)}

    prompts = [prompt(number) for number in range(3)]
    options = {"best_of": lanes, "max_new_tokens": 5, "batch_size": 4}
    made = [*generator.generate_many(prompts, **options)]
    assert running == sorted(running)
    assert made == [
        generator.generate("the ", index=index, best_of=lanes, max_new_tokens=5)
        for index in range(3)
    ]


def test_texts_before_a_wrong_prompt_come(generator):
    many = generator.generate_many(iter(["the ", "a", "é"]), max_new_tokens=3)
    assert [next(many).prompt, next(many).prompt] == ["the ", "a"]
    with raises(PromptError, source="prompts[2]", characters=("é",)):
        next(many)
    assert list(many) == []


def test_one_request_that_fails_harms_no_other(finished_run):
    """A sampler that forbids everything in the rows whose text has a certain token, as a grammar
    may.
    """

    def forbid(logits, history):
        made = logits.copy()
        for row in range(len(made)):
            if 5 in history.tokens(row)[4:]:
                made[row] = -float("inf")
        return made

    generator = load(finished_run, sampler=forbid)

    async def read(index):
        try:
            return await text_of(generator.astream("the ", index=index, max_new_tokens=40))
        except ContractError:
            return None

    async def together():
        return await asyncio.gather(*map(read, range(30)))

    alone = [asyncio.run(read(index)) for index in range(30)]
    assert None in alone
    assert any(alone)
    assert asyncio.run(together()) == alone


def test_many_prompts_are_read_as_their_turn_comes(generator):
    prompts = itertools.repeat("the ", 40)
    many = generator.generate_many(prompts, batch_size=4, max_new_tokens=3)
    assert [next(many).index for _ in range(10)] == list(range(10))
    assert next(prompts) == "the "


def test_a_batch_that_is_left_does_no_more_work_and_leaves_no_memory(finished_run):
    watcher, generator = watched(finished_run)
    many = generator.generate_many(itertools.repeat("the "), batch_size=3, max_new_tokens=5)
    next(many)
    calls = watcher.calls
    del many
    gc.collect()
    assert watcher.calls == calls <= 10
    assert all(history() is None for history in watcher.histories)


def test_a_time_limit_is_for_all_texts_together(generator):
    begun = time.monotonic()
    many = [*generator.generate_many(["the "] * 3, max_new_tokens=None, time_limit=0.3)]
    many += generator.generate_many(["the "] * 3, max_new_tokens=None, time_limit=0.3, batch_size=1)
    assert {made.finish_reason for made in many} == {"time"}
    assert [bool(made.text) for made in many] == [True] * 4 + [False] * 2
    assert time.monotonic() - begun < 10


def test_a_time_limit_counts_for_a_text_that_waits_for_its_turn(generator):
    async def late():
        ask = partial(generator.agenerate, "the ", max_new_tokens=None)
        others = [asyncio.create_task(ask(index=n, time_limit=600)) for n in range(256)]
        await asyncio.sleep(0.1)
        made = await asyncio.wait_for(ask(time_limit=0.1), 20)
        running = sum(not other.done() for other in others)
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        return made.finish_reason, len(made.tokens), running

    assert asyncio.run(late()) == ("time", 0, 256)


def test_a_prompt_that_is_wrong_is_an_error_under_a_time_limit_too(generator):
    many = generator.generate_many(iter(["the ", "a", "é"]), time_limit=600, batch_size=1)
    assert [next(many).prompt, next(many).prompt] == ["the ", "a"]
    with raises(PromptError, source="prompts[2]", characters=("é",)):
        next(many)
    with raises(UsageError, source="prompts[1]"):
        generator.generate_many(["the ", [0.5]], time_limit=0)
