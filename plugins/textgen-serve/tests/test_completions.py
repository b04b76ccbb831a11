"""What POST /v1/completions gives, to clients as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

import textgen

Complete = Callable[..., Any]


@pytest.mark.parametrize("stream", [False, True])
def test_the_openai_client_gets_the_text_that_the_generator_makes(
    server: Any, generator: textgen.Generator, stream: bool
) -> None:
    made = generator.generate("Once ", max_new_tokens=40, seed=7, temperature=0.5)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        options: dict[str, Any] = {"max_tokens": 40, "seed": 7, "temperature": 0.5}
        answer = client.completions.create(model="ravens", prompt="Once ", stream=stream, **options)
        if not stream:
            assert answer.choices[0].text == made.text
            assert answer.usage.completion_tokens == 40
            return
        chunks = list(answer)
    assert "".join(chunk.choices[0].text for chunk in chunks) == made.text
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "length"]


def test_many_streams_at_once_give_the_texts_that_each_gives_alone(
    server: Any, generator: textgen.Generator
) -> None:
    requests = [{"prompt": f"Once {i} ", "seed": i, "max_tokens": 60} for i in range(200)]

    async def text(client: openai.AsyncOpenAI, request: dict[str, Any]) -> str:
        stream = await client.completions.create(model="ravens", stream=True, **request)
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def texts() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0
        ) as client:
            return await asyncio.gather(*(text(client, request) for request in requests))

    alone = [
        generator.generate(r["prompt"], seed=r["seed"], max_new_tokens=60).text for r in requests
    ]
    assert asyncio.run(texts()) == alone


def test_the_prompts_of_a_list_get_what_each_gets_alone(
    complete: Complete, generator: textgen.Generator
) -> None:
    ids = generator.encode_prompt("Once 3 ").tolist()
    options = {"seed": 5, "max_tokens": 20, "n": 2}
    for prompts in (["Once 3 ", "Once ", ""], [ids, ids[:2]]):
        together = complete(prompt=prompts, **options)["choices"]
        assert [choice["index"] for choice in together] == list(range(2 * len(prompts)))
        alone = [c["text"] for p in prompts for c in complete(prompt=p, **options)["choices"]]
        assert [choice["text"] for choice in together] == alone


def test_models_are_listed(http: httpx2.Client) -> None:
    (model,) = http.get("/v1/models").json()["data"]
    assert model["id"] == "ravens"
    card = http.get("/v1/models/ravens").json()
    assert card["textgen"]["sampling_options"]["temperature"]["value"] == 0.8
    assert card["textgen"]["metrics"]
