"""Answers of POST /v1/completions to clients as they are."""

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import httpx2
import openai
import pytest
from conftest import events_of, running, serving, train
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import textgen
from textgen import Component, NoOptions, hookimpl, option
from textgen_serve.app import create_app


@pytest.mark.parametrize("stream", [False, True])
def test_the_openai_client_gets_the_text_that_the_generator_makes(server, generator, stream):
    made = generator.generate("Once ", max_new_tokens=40, seed=7, temperature=0.5)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        options = {"max_tokens": 40, "seed": 7, "temperature": 0.5}
        answer = client.completions.create(model="ravens", prompt="Once ", stream=stream, **options)
        if not stream:
            assert answer.choices[0].text == made.text
            assert answer.usage.completion_tokens == 40
            return
        chunks = list(answer)
    assert "".join(chunk.choices[0].text for chunk in chunks) == made.text
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "length"]


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({"beams": 3}, {"beams": 3}),
        ({"ban_phrase": ["hill", "none"]}, {"ban_phrase": ["hill", "none"]}),
        ({"suffix": " hills"}, {"suffix": " hills"}),
        ({"strategy": "beam"}, {"beams": 4}),
        (
            {"negative_prompt": "Twice ", "guidance_scale": 2},
            {"negative_prompt": "Twice ", "guidance_scale": 2.0},
        ),
        ({"suffix": "", "negative_prompt": "", "guidance_scale": 1}, {}),
    ],
)
def test_a_strategy_is_chosen_by_its_options(complete, generator, asked, options):
    made = generator.generate("Once ", max_new_tokens=20, seed=3, **options)
    answer = complete(prompt="Once ", max_tokens=20, seed=3, **asked)
    assert answer["choices"][0]["text"] == made.text


def test_many_streams_at_once_give_the_texts_that_each_gives_alone(server, generator):
    requests = [{"prompt": f"Once {i} ", "seed": i, "max_tokens": 60} for i in range(200)]

    async def text(client, request):
        stream = await client.completions.create(model="ravens", stream=True, **request)
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def texts():
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0
        ) as client:
            return await asyncio.gather(*(text(client, request) for request in requests))

    alone = [
        generator.generate(r["prompt"], seed=r["seed"], max_new_tokens=60).text for r in requests
    ]
    assert asyncio.run(texts()) == alone


def test_the_prompts_of_a_list_get_what_each_gets_alone(complete, generator):
    ids = generator.prepare("Once 3 ").ids.tolist()
    options = {"seed": 5, "max_tokens": 20, "n": 2}
    for prompts in (["Once 3 ", "Once ", "", "Once 3 ravens flew. " * 250], [ids, ids[:2]]):
        together = complete(prompt=prompts, **options)["choices"]
        assert [choice["index"] for choice in together] == list(range(2 * len(prompts)))
        alone = [c["text"] for p in prompts for c in complete(prompt=p, **options)["choices"]]
        assert [choice["text"] for choice in together] == alone


def test_models_are_listed(http):
    (model,) = http.get("/v1/models").json()["data"]
    assert model["id"] == "ravens"
    card = http.get("/v1/models/ravens").json()
    assert card["textgen"]["sampling_options"]["temperature"]["value"] == 0.8
    assert card["textgen"]["metrics"]


def test_the_document_has_the_parameters_of_requests(http):
    document = http.get("/openapi.json").json()
    given = document["components"]["schemas"]["Request"]["properties"]
    assert {"prompt", "index", "temperature", "dry_multiplier", "json_schema"} <= given.keys()
    assert "exclu" in given["xtc_probability"]["description"]


def test_log_probabilities_of_an_echoed_prompt_are_those_of_score_tokens(complete, generator):
    ids = generator.prepare("Once 3 ravens flew over 2 hills").ids.tolist()
    body = {"temperature": 0, "logprobs": 1, "seed": 1234, "echo": True}  # as lm-evaluation-harness
    text = "Once 3 ravens flew over 2 hills"
    (scored,) = generator.score_tokens(text)
    (choice,) = complete(prompt=text, max_tokens=0, **body)["choices"]
    assert choice["logprobs"]["token_logprobs"] == scored.logprobs.tolist()
    for most in (0, 1):  # nothing stands before ids
        (choice,) = complete(prompt=[ids], max_tokens=most, **body)["choices"]
        given = choice["logprobs"]
        assert [len(given[name]) for name in given] == [len(ids) + most] * 4
        assert given["token_logprobs"][0] is None
        assert given["text_offset"] == list(range(len(ids) + most))
        pairs = zip(given["token_logprobs"][1:], given["top_logprobs"][1:], strict=True)
        greedy = [own == max(top.values()) for own, top in pairs]
        logits = generator.logits(ids)
        assert greedy[: len(ids) - 1] == (logits[:-1].argmax(-1) == ids[1:]).tolist()


@pytest.mark.parametrize("stop", [None, ["n", "over"]])
def test_a_stream_with_log_probabilities_has_one_token_an_event(http, complete, stop):
    body = {
        "prompt": "Once ",
        "max_tokens": 50,
        "seed": 4,
        "logprobs": 2,
        "stop": stop,
        "echo": True,
    }
    whole = complete(**body)["choices"][0]
    events = streamed(http, **body)
    choices = [event["choices"][0] for event in events]
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    joined = {name: [] for name in whole["logprobs"]}
    for choice in choices[1:-1]:
        assert len(choice["logprobs"]["tokens"]) == 1
        assert choice["text"] in (*choice["logprobs"]["top_logprobs"][0], "")
    for choice in choices[:-1]:
        for name, values in choice["logprobs"].items():
            joined[name] += values
    assert joined == whole["logprobs"]
    assert (choices[-1]["text"], choices[-1]["finish_reason"]) == ("", whole["finish_reason"])


def streamed(http, **body):
    """The events of a stream."""
    answer = http.post("/v1/completions", json={**body, "stream": True})
    return events_of(answer.text)


def test_ranks_of_the_prompt_are_in_the_shape_of_vllm(complete, generator):
    ids = generator.prepare("Once 3").ids.tolist()
    (choice,) = complete(prompt=ids, prompt_logprobs=2, max_tokens=0)["choices"]
    logits = generator.logits(ids)
    assert choice["prompt_logprobs"][0] is None
    for place, entry in enumerate(choice["prompt_logprobs"][1:]):
        own = entry[str(ids[place + 1])]
        assert own["rank"] == 1 + int((logits[place] > logits[place][ids[place + 1]]).sum())
        assert own["decoded_token"] == "Once 3"[place + 1]
        assert {each["rank"] for each in entry.values()} == {1, 2, own["rank"]}


def test_usage_comes_last_in_a_stream_and_equals_the_whole_answer(http, complete):
    body = {"prompt": ["Once ", "O"], "n": 2, "max_tokens": 9, "seed": 1}
    events = streamed(http, stream_options={"include_usage": True}, **body)
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == complete(**body)["usage"]
    assert events[-1]["usage"] == {"prompt_tokens": 6, "completion_tokens": 36, "total_tokens": 42}
    texts = dict.fromkeys(range(4), "")
    for event in events[:-1]:
        texts[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert [*texts.values()] == [choice["text"] for choice in complete(**body)["choices"]]


def test_a_seed_that_was_drawn_is_reported_and_gives_the_text_again(complete):
    for seed in ({}, {"seed": -1}, {"seed": None}):
        (made,) = complete(prompt="Once ", max_tokens=30, temperature=3, **seed)["choices"]
        again = complete(prompt="Once ", max_tokens=30, temperature=3, seed=made["textgen"]["seed"])
        assert again["choices"][0]["text"] == made["text"]


def test_what_is_omitted_is_as_the_run_has_it(complete, generator):
    made = generator.generate("Once ", seed=2)
    (choice,) = complete(prompt="Once ", seed=2)["choices"]
    assert (choice["text"], len(choice["text"])) == (made.text, 400)


def test_the_best_of_several_texts_is_the_likeliest(complete, generator):
    all_made = [
        generator.generate("Once ", max_new_tokens=12, seed=6, index=i, logprobs=0, temperature=1.5)
        for i in range(5)
    ]
    mean = [sum(entry.logprob or 0 for entry in made.logprobs) for made in all_made]
    body = {"prompt": "Once ", "max_tokens": 12, "seed": 6, "temperature": 1.5}
    (choice,) = complete(best_of=5, **body)["choices"]
    assert choice["text"] == all_made[mean.index(max(mean))].text


def test_names_of_other_servers_have_their_effect_or_none(complete, generator):
    mikupad = {
        "model": "ravens",
        "prompt": "Once ",
        "temperature": 0.7,
        "repetition_penalty": 1,
        "repetition_penalty_range": 1024,
        "penalize_nl": False,
        "ban_eos_token": False,
        "presence_penalty": 0.2,
        "frequency_penalty": 0,
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0,
        "mirostat_mode": 0,
        "tfs": 1,
        "dry_multiplier": 0.5,
        "dry_sequence_breakers": '["\\n"]',
        "max_tokens": 30,
        "seed": 3,
        "stop": [],
    }
    made = generator.generate(
        "Once ",
        temperature=0.7,
        presence_penalty=0.2,
        top_k=20,
        top_p=0.9,
        dry_multiplier=0.5,
        max_new_tokens=30,
        seed=3,
    )
    assert complete(**mikupad)["choices"][0]["text"] == made.text
    silly_tavern = {"seed": -1, "stop": [], "n": 2, "best_of": 2, "logit_bias": {}, "logprobs": 10}
    assert len(complete(prompt="Once ", max_tokens=3, **silly_tavern)["choices"]) == 2
    e = generator.prepare("e").ids.tolist()[0]
    (choice,) = complete(prompt="Onc", max_tokens=3, logit_bias={str(e): 100})["choices"]
    assert choice["text"] == "eee"


NO_EFFECT = {
    "user": "me",
    "cache_prompt": True,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "suffix": "",
    "use_beam_search": False,
    "early_stopping": False,
    "length_penalty": 1,
    "include_stop_str_in_output": False,
    "top_k": -1,
    "min_tokens": 0,
    "ignore_eos": False,
    "stop_token_ids": [],
    "logit_bias": {},
    "dry_base": 1.75,
    "dry_sequence_breakers": '["\\n"]',
    "typical_p": 1,
    "tfs": 1,
    "mirostat_mode": 0,
    "dynamic_temperature": False,
    "dynatemp_low": 0.5,
    "dynatemp_high": 1.5,
    "dynatemp_exponent": 1,
    "guidance_scale": 1,
    "negative_prompt": "",
    "repetition_penalty": 1,
    "repetition_penalty_range": 1024,
    "penalize_nl": True,
    "banned_tokens": [],
    "grammar_string": "",
    "guided_grammar": "",
    "guided_json": None,
    "guided_regex": None,
    "response_format": {"type": "text"},
}


def test_what_clients_send_without_a_setting_changes_no_text(complete):
    asked = {"prompt": "Once ", "max_tokens": 30, "seed": 3}
    assert complete(**asked, **NO_EFFECT)["choices"] == complete(**asked)["choices"]


REFUSED = [
    ({"temperatur": 1}, "temperatur", "did you mean 'temperature'"),
    ({"strategy": {"type": "beam"}}, "strategy", "name"),
    ({"strategy": "beam", "best_of": 2, "suffix": "x"}, "strategy", "one"),
    ({"beams": 200, "n": 2}, "beams", "integer"),
    ({"suffix": "x", "beams": 2}, "strategy", "one"),
    ({"negative_prompt": "Twice", "guidance_scale": 1e308}, "guidance_scale", "1000"),
    ({"tfs": 0.5}, "tfs", "not supported"),
    ({"dynamic_temperature": True, "dynatemp_low": 0.5}, "dynamic_temperature", "not supported"),
    ({"repetition_penalty": 1.1, "penalize_nl": False}, "penalize_nl", "not supported"),
    ({"temperature": -1}, "temperature", "must be"),
    ({"temperature": True}, "temperature", "expected"),
    ({"max_tokens": -1}, "max_tokens", "integer"),
    ({"max_tokens": True}, "max_tokens", "integer"),
    ({"max_tokens": 10**9}, "max_tokens", "integer"),
    ({"n": 10**6}, "n", "integer"),
    ({"n": 200, "prompt": ["a", "b"]}, "n", "256"),
    ({"seed": "random"}, "seed", "integer"),
    ({"logprobs": "many"}, "logprobs", "integer"),
    ({"echo": 1}, "echo", "true or false"),
    ({"prompt": ["a", 1]}, "prompt", "list"),
    ({"prompt": [[1], [True]]}, "prompt", "list"),
    ({"prompt": [10**18]}, "prompt", "ids"),
    ({"prompt": "é"}, "prompt", "U+00E9"),
    ({"stream_options": {}}, "stream_options", "needs stream"),
    ({"stream": True, "best_of": 2}, "best_of", "streamed"),
    ({"stream": True, "prompt_logprobs": 1}, "prompt_logprobs", "streamed"),
    ({"state": {}}, "state", "unknown"),
    ({"cancelled": 1}, "cancelled", "unknown"),
    ({"regex": "("}, "regex", ""),
    ({"regex": "(a{1,1000}){1,1000}"}, None, "form"),
    ({"time_limit": 10**6}, "time_limit", "at most"),
    ({"stop": ["a"] * 2000}, "stop", "items"),
    ({"model": "gone"}, "model", "no model"),
    ({"logit_bias": {"99999": 1}}, "logit_bias", "expected"),
    ({"suffix": "a" * 9000}, "suffix", "at most"),
    ({"negative_prompt": "a" * 9000}, "negative_prompt", "at most"),
]


@pytest.mark.parametrize(("body", "param", "said"), REFUSED, ids=lambda v: str(v)[:40])
def test_a_wrong_parameter_is_refused_by_name(http, body, param, said):
    answer = http.post("/v1/completions", json=body)
    error = answer.json()["error"]
    assert answer.status_code == (404 if param == "model" else 400), answer.text
    assert error["param"] == param, error
    assert said in error["message"]
    assert error["type"] in ("invalid_request_error", "not_found_error")
    assert answer.headers["x-request-id"]


@attrs.frozen
class Reading:
    """Reads a file and a run."""

    words: Path = option(Path(), help="a file", argument="words_file")
    other: Any = option(None, kind="run", help="a run", argument="other_run")


@pytest.mark.parametrize("kind", ["samplers", "strategies"])
def test_no_client_chooses_what_is_read(run, kind):
    def offer():
        return [Component("reading", Reading, lambda config, context: config)]

    plugins = textgen.PluginSet.discover()
    plugins.register(SimpleNamespace(**{f"textgen_{kind}": hookimpl(offer)}), "reading")
    with running(create_app({"ravens": run}, plugins=plugins)) as address:
        for name in ("words_file", "other_run"):
            url = f"http://127.0.0.1:{address[1]}/v1/completions"
            answer = httpx2.post(url, json={name: "ravens"})
            assert answer.json()["error"]["message"] == f"unknown parameter {name!r}"


def test_a_plugin_offers_a_route(run):
    def build(config, context):
        return Route("/extra", lambda request: PlainTextResponse("here"))

    kinds = hookimpl(lambda: {"route": [Component("extra", NoOptions, build)]})
    plugins = textgen.PluginSet.discover()
    plugins.register(SimpleNamespace(textgen_kinds=kinds), "extra")
    with running(create_app({"ravens": run}, plugins=plugins)) as address:
        assert httpx2.get(f"http://127.0.0.1:{address[1]}/extra").text == "here"


BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"temperature": NaN}',
    b'{"temperature": Infinity}',
    b'{"temperature": 1e999}',
    b'{"seed": ' + b"9" * 5000 + b"}",
    b'{"prompt": "a", "prompt": "b"}',
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "\xff"}',
    b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"json_schema": ' + b'{"a":' * 40 + b"1" + b"}" * 41,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:24]))
def test_a_body_that_is_not_plain_json_is_refused(http, body):
    headers = {"content-type": "application/json"}
    answer = http.post("/v1/completions", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


def test_the_openai_client_raises_its_own_errors(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="ravens", prompt="é")
        assert (caught.value.param, bool(caught.value.request_id)) == ("prompt", True)
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("a/b")
        with pytest.raises(openai.BadRequestError, match="/v1/completions"):
            client.chat.completions.create(
                model="ravens", messages=[{"role": "user", "content": "Hi"}]
            )


def test_tokens_in_the_shapes_of_vllm(http, generator):
    ids = generator.prepare("Once").ids.tolist()
    made = http.post("/tokenize", json={"prompt": "Once", "return_token_strs": True}).json()
    assert (made["tokens"], made["count"], made["token_strs"]) == (ids, 4, list("Once"))
    assert http.post("/detokenize", json={"tokens": ids}).json() == {"prompt": "Once"}
    wrong = http.post("/tokenize", json={"prompt": "Once", "return_token_strs": 1}).json()
    assert wrong["error"]["param"] == "return_token_strs"
    outside = http.post("/tokenize", json={"prompt": "é", "add_special_tokens": False})
    assert (outside.status_code, outside.json()["count"]) == (200, 1)
    assert http.get("/tokenizer_info").json()["eos_token"] is None
    assert http.post("/detokenize", json={"tokens": [10**6]}).json()["error"]["param"] == "tokens"


@pytest.mark.parametrize("given", [{"presence_penalty": 5}, {"regex": "(over|flew)[a-z ]{20}"}])
def test_next_tokens_follow_the_beginning_of_a_text(http, generator, given):
    options = {**given, "temperature": 0, "seed": 3}
    made = generator.generate("Once ", max_new_tokens=12, index=2, **options)
    for place, drawn in enumerate(made.tokens):
        body = {"prompt": "Once ", "max_tokens": place, "index": 2, **options}
        found = http.post("/next_tokens", json=body).json()
        sampled = [t["id"] for t in found["tokens"] if t["sampled_logprob"] is not None]
        assert (found["text"], sampled) == (made.text[:place], [drawn])
    ids = {token["id"] for token in found["tokens"]}
    ends = {"max_tokens": 1, "min_new_tokens": 1, "stop_tokens": [*ids], "temperature": 1}
    (token, *_) = http.post("/next_tokens", json={"prompt": "Once ", **ends}).json()["tokens"]
    assert token["sampled_logprob"] is not None  # a token may end the text now
    ending = {"prompt": "Once ", "max_tokens": 20, "stop": "e", "seed": 3}
    refused = http.post("/next_tokens", json=ending)
    assert refused.json()["error"]["param"] == "max_tokens"


def test_names_of_ignored_parameters_are_one_header(run):
    with (
        serving(run, "--unknown-parameters", "ignore") as server,
        httpx2.Client(base_url=server.url, timeout=60) as http,
    ):
        answer = http.post("/v1/completions", json={"a\nb\r: é": 1, "c": 2, "max_tokens": 1})
    assert answer.headers["x-ignored-parameters"] == r"a\nb\r: \xe9, c"


def test_choices_begin_at_an_index(complete):
    body = {"prompt": "Once ", "max_tokens": 9, "seed": 5}
    all_three = [choice["text"] for choice in complete(n=3, **body)["choices"]]
    assert [choice["text"] for choice in complete(n=2, index=1, **body)["choices"]] == all_three[1:]


def test_next_tokens_before_and_after_the_samplers(http, generator):
    body = {"prompt": "Once 3", "logprobs": 4, "top_k": 2, "temperature": 0.5}
    tokens = http.post("/next_tokens", json=body).json()["tokens"]
    before, after = generator.next_logprobs("Once 3", top_k=2, temperature=0.5)
    assert [t["id"] for t in tokens] == (-before).argsort()[:4].tolist()
    assert [t["logprob"] for t in tokens] == [before[t["id"]] for t in tokens]
    sampled = [after[t["id"]] for t in tokens[:2]]
    assert [t["sampled_logprob"] for t in tokens] == [*sampled, None, None]


def test_tokens_of_several_characters(tmp_path):
    run = train(tmp_path / "run", tokenizer={"type": "bpe", "vocab_size": 300})
    with serving(run) as server, httpx2.Client(base_url=server.url, timeout=60) as http:
        many = "Once 3 ravens flew over 2 hills. " * 7000  # more characters than tokens may be
        for path, most in (("/v1/completions", 1), ("/next_tokens", 0)):
            answer = http.post(path, json={"prompt": many, "max_tokens": most})
            assert answer.status_code == 200, answer.text
        body = {"prompt": "Once 3 ", "logprobs": 1}
        (token, *_) = http.post("/next_tokens", json=body).json()["tokens"]
        assert re.fullmatch(r"\w+", token["text"])
        body = {"prompt": "Once 3 ", "max_tokens": 6, "temperature": 0}
        (choice,) = http.post("/v1/completions", json=body).json()["choices"]
    assert choice["text"].startswith(token["text"])
