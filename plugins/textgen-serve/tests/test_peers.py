"""Demands of llama.cpp's and vLLM's tests on completions, as far as they fit here. The
README of the package lists what differs.
"""

import pytest
from conftest import events_of

ONCE = {"prompt": "Once ", "max_tokens": 12, "temperature": 1, "seed": 42}
IDS = [1, 2, 3, 4]


def texts(choices):
    return [choice["text"] for choice in choices]


def logprobs(choices, name):
    return choices[0]["logprobs"][name]


CASES = {
    "no log-probabilities": ({"logprobs": None}, lambda made: made[0]["logprobs"] is None),
    "no alternatives": (
        {"logprobs": 0},
        lambda made: {len(top) for top in logprobs(made, "top_logprobs")} == {1},
    ),
    "five alternatives": (
        {"logprobs": 5, "prompt": IDS},
        lambda made: {len(top) for top in logprobs(made, "top_logprobs")} <= {5, 6},
    ),
    "echo without alternatives": (
        {"logprobs": 0, "echo": True, "prompt": IDS},
        lambda made: (
            [len(top or ()) for top in logprobs(made, "top_logprobs")] == [0] + [1] * 15
            and logprobs(made, "token_logprobs")[0] is None
        ),
    ),
    "ranks of a prompt": (
        {"prompt_logprobs": 0, "prompt": ["Once ", "O"]},
        lambda made: [len(choice["prompt_logprobs"]) for choice in made] == [5, 1],
    ),
    "no ranks": ({}, lambda made: "prompt_logprobs" not in made[0]),
    "texts of a prompt": (
        {"n": 3},
        lambda made: len(set(texts(made))) == 3 and [c["index"] for c in made] == [0, 1, 2],
    ),
    "at most": ({"max_tokens": 5}, lambda made: made[0]["finish_reason"] == "length"),
    "stop": (
        {"stop": ["n", "o"], "max_tokens": 90},
        lambda made: made[0]["finish_reason"] == "stop" and not {"n", "o"} & set(texts(made)[0]),
    ),
    "stop text of a token": (
        {"temperature": 0, "stop_token_ids": IDS, "return_token_ids": True, "max_tokens": 90},
        lambda made: not set(IDS) & set(made[0]["token_ids"][:-1]),
    ),
    "bias by text": (
        {"logit_bias": {"e": -100, "r": -100}, "max_tokens": 90},
        lambda made: not {"e", "r"} & set(texts(made)[0]),
    ),
    "form": ({"guided_regex": "[0-9]{3}"}, lambda made: texts(made)[0].isdigit()),
}


@pytest.mark.parametrize(("body", "holds"), CASES.values(), ids=CASES)
def test_an_answer_and_its_stream_are_as_asked(http, body, holds):
    if "guided_regex" in body:
        pytest.importorskip("llguidance")
    answer = http.post("/v1/completions", json=ONCE | body).json()
    assert holds(answer["choices"]), answer
    if "prompt_logprobs" not in body:
        stream = http.post("/v1/completions", json={**ONCE, **body, "stream": True}).text
        shown, ended = [""] * len(answer["choices"]), [0] * len(answer["choices"])
        for event in events_of(stream):
            (choice,) = event["choices"]
            shown[choice["index"]] += choice["text"]
            ended[choice["index"]] += choice["finish_reason"] is not None
        assert (shown, set(ended)) == (texts(answer["choices"]), {1})


def test_seeds_give_texts_of_their_own_again_and_again(http):
    def text(**options):
        return http.post("/v1/completions", json=ONCE | options).json()["choices"][0]["text"]

    for batch in (1, 2):  # alone, and beside another
        assert {text(prompt=["Once "] * batch) for _ in range(3)} == {text()}
    assert text(cache_prompt=False) == text(cache_prompt=True)
    assert len({text(seed=seed) for seed in range(4)}) == 4


def test_ids_that_go_in_come_out(http, generator):
    body = {**ONCE, "prompt": IDS, "return_token_ids": True}
    (whole,) = http.post("/v1/completions", json=body).json()["choices"]
    assert whole["prompt_token_ids"] == IDS
    text = http.post("/detokenize", json={"tokens": whole["token_ids"]}).json()["prompt"]
    assert text == whole["text"]
    events = events_of(http.post("/v1/completions", json={**body, "stream": True}).text)
    ids = [token for event in events for token in event["choices"][0]["token_ids"]]
    assert ids == whole["token_ids"]


@pytest.mark.parametrize("include", [True, False])
def test_usage_is_in_a_stream_only_where_it_is_asked_for(http, include):
    options = {"include_usage": include, "continuous_usage_stats": False}
    body = {**ONCE, "stream": True, "stream_options": options}
    events = events_of(http.post("/v1/completions", json=body).text)
    with_usage = [event for event in events if event.get("usage")]
    assert [event["choices"] for event in with_usage] == [[]] * include


REFUSED = [
    ({"logprobs": 101}, "logprobs"),
    ({"logprobs": 101, "stream": True}, "logprobs"),
    ({"logprobs": -1}, "logprobs"),
    ({"prompt_logprobs": -1}, "prompt_logprobs"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [[-1]]}, "prompt"),
    ({"prompt": [IDS, "Once "]}, "prompt"),
    ({"prompt": [1, "Once ", 2]}, "prompt"),
    ({"stream_options": {"include_usage": None}}, "stream_options"),
    ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "stream_options"),
    ({"guided_json": {"properties": {"foo": "bar"}}}, "json_schema"),
    ({"guided_grammar": "root ::= select"}, "guided_grammar"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"logit_bias": [[5, -100]]}, "logit_bias"),
    ({"truncate_prompt_tokens": 4}, "truncate_prompt_tokens"),
    ({"use_beam_search": True}, "use_beam_search"),
]


@pytest.mark.parametrize(("body", "param"), REFUSED, ids=str)
def test_what_peers_refuse_or_do_otherwise_is_refused_by_name(http, body, param):
    answer = http.post("/v1/completions", json=ONCE | body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert http.post("/v1/completions", json=ONCE).status_code == 200
