"""Chats, where they are asked for: their contents, one after the other, are the prompt."""

import openai
import pytest
from conftest import serving

MESSAGES = [
    {"role": "system", "content": "Once "},
    {"role": "user", "content": [{"type": "text", "text": "3 rav"}, {"type": "text", "text": "e"}]},
    {"role": "assistant", "content": None},
    {"role": "user", "content": "ns"},
]


@pytest.fixture(scope="module")
def client(run):
    with (
        serving(run, "--chat") as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


def test_a_chat_is_answered_with_the_continuation_of_its_contents(client, generator):
    options = {"seed": 7, "max_tokens": 30, "temperature": 0.5}
    asked = {"model": "ravens", "messages": MESSAGES, "n": 2, **options}
    texts = [
        generator.generate("Once 3 ravens", seed=7, index=i, max_new_tokens=30, temperature=0.5)
        for i in range(2)
    ]
    answer = client.chat.completions.create(**asked, logprobs=False)
    assert [choice.message.content for choice in answer.choices] == [made.text for made in texts]
    assert {choice.message.role for choice in answer.choices} == {"assistant"}
    assert (answer.object, answer.usage and answer.usage.prompt_tokens) == ("chat.completion", 13)
    shown, roles, ends = ["", ""], [], []
    for chunk in client.chat.completions.create(**asked, stream=True):
        assert chunk.object == "chat.completion.chunk"
        (choice,) = chunk.choices
        shown[choice.index] += choice.delta.content or ""
        roles += [choice.delta.role] if choice.delta.role else []
        ends += [choice.finish_reason] if choice.finish_reason else []
    assert shown == [made.text for made in texts]
    assert (roles, ends) == (["assistant"] * 2, ["length"] * 2)


CLIENTS = {
    "Open WebUI": {
        "temperature": 0.7,
        "max_tokens": 20,
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    "a title in Open WebUI": {"stream": False, "max_completion_tokens": 20},
    "LibreChat": {
        "temperature": 1,
        "top_p": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "user": "me",
        "stop": ["\n\n"],
        "stream": True,
    },
}


@pytest.mark.parametrize("body", CLIENTS.values(), ids=CLIENTS)
def test_what_a_chat_client_sends_is_accepted(client, body):
    asked = {"model": "ravens", "messages": [{"role": "user", "content": "Once 3"}], "seed": 7}
    answer = client.chat.completions.with_raw_response.create(**asked, extra_body=body)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": "Once "}, "messages"),
        ({"messages": ["Once "]}, "messages"),
        ({"messages": [{"content": 5}]}, "messages"),
        ({"messages": [{"content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"content": ["Once "]}]}, "messages"),
        ({"messages": [{"content": "é"}]}, "prompt"),
        ({"messages": MESSAGES, "logprobs": True}, "logprobs"),
        ({"messages": MESSAGES, "prompt": "Once "}, "prompt"),
        ({"messages": MESSAGES, "tools": [{}]}, "tools"),
    ],
)
def test_a_chat_that_is_not_text_alone_is_refused(client, body, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    assert caught.value.param == param
