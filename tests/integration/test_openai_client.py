"""OpenAI's own client against a running stack, with nothing but the address and the key changed."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.integration.conftest import Running

HELLO = "Shall the tenant pay the rent?"


@pytest.fixture
def client(fake_stack: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{fake_stack.url}/v1", api_key=fake_stack.key, max_retries=0) as made:
        yield made


def test_a_completion_is_the_same_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="fake", prompt=HELLO, max_tokens=8, temperature=0)
    assert whole.object == "text_completion"
    assert whole.id.startswith("cmpl-")
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage
    assert whole.usage.completion_tokens == 8
    stream = client.completions.create(
        model="fake", prompt=HELLO, max_tokens=8, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    texts = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.text for choice in texts) == whole.choices[0].text
    assert texts[-1].finish_reason == "length"
    assert chunks[-1].usage == whole.usage


def test_many_prompts_with_several_choices_keep_their_order(client: openai.OpenAI) -> None:
    prompts = ["first", "second"]
    answer = client.completions.create(model="fake", prompt=prompts, n=2, seed=4, max_tokens=40)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    alone = [
        client.completions.create(model="fake", prompt=prompt, seed=seed, max_tokens=40)
        for prompt in prompts
        for seed in (4, 5)
    ]
    assert [choice.text for choice in answer.choices] == [one.choices[0].text for one in alone]
    assert len({choice.text for choice in answer.choices}) == 4
    assert answer.usage
    assert answer.usage.completion_tokens == sum(one.usage.completion_tokens for one in alone if one.usage)
    assert answer.usage.prompt_tokens == 2


def test_choices_of_a_chat_stream_side_by_side(client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": HELLO}]
    whole = client.chat.completions.create(model="fake", messages=messages, n=3, seed=1, max_tokens=30)
    expected = [choice.message.content for choice in whole.choices]
    assert len(set(expected)) == 3
    texts, ends = [""] * 3, [""] * 3
    usage = None
    for chunk in client.chat.completions.create(
        model="fake", messages=messages, n=3, seed=1, max_tokens=30, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == expected
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


@pytest.mark.parametrize(("tier", "priority"), [("flex", "low"), ("priority", "critical"), ("auto", "high")])
def test_a_tier_is_a_priority(client: openai.OpenAI, fake_stack: Running, tier: str, priority: str) -> None:
    answer = client.chat.completions.create(
        model="fake",
        messages=[{"role": "user", "content": HELLO}],
        max_tokens=2,
        service_tier=tier,  # pyright: ignore[reportArgumentType]
    )
    job = fake_stack.job("job_" + answer.id.removeprefix("chatcmpl-"))
    assert job["priority"] == priority
    assert answer.service_tier == (tier if tier != "auto" else "default")


def test_what_is_refused_raises_what_the_client_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.completions.create(model="fake", prompt=["fine", "not\0fine"], max_tokens=2)
    assert refused.value.code == "text_invalid"
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="none-such", prompt="fine")
    with pytest.raises(openai.UnprocessableEntityError):
        client.completions.create(model="fake", prompt=["x"] * 100, n=2)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=client.base_url, api_key="cm_wrong", max_retries=0).models.list()


def test_embeddings_and_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["fake"]
    model = client.models.retrieve("fake")
    assert (model.object, model.owned_by) == ("model", "casemill")
    assert isinstance(model.created, int)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none-such")
    floats = client.embeddings.create(model="fake", input=["one", "two"], encoding_format="float")
    packed = client.embeddings.create(model="fake", input=["one", "two"])
    assert [item.embedding for item in packed.data] == [item.embedding for item in floats.data]
    short = client.embeddings.create(model="fake", input="one", dimensions=8)
    assert len(short.data[0].embedding) == 8
    assert (short.usage.prompt_tokens, short.usage.total_tokens) == (1, 1)


def test_embeddings_take_tokens(client: openai.OpenAI) -> None:
    one = client.embeddings.create(model="fake", input=[7, 9])
    many = client.embeddings.create(model="fake", input=[[7, 9], [9, 7]])
    assert one.usage.prompt_tokens == 2
    assert many.data[0].embedding == one.data[0].embedding != many.data[1].embedding
    for wrong in ([10**6], [-1], [[]], ["x", 3]):
        with pytest.raises(openai.UnprocessableEntityError):
            client.embeddings.create(model="fake", input=wrong)  # pyright: ignore[reportArgumentType]
