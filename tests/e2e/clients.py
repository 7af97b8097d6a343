"""One greedy question to a fleet, asked by each official client in its own API."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

LIMIT = 8


def ask_all(url: str, model: str, question: str) -> dict[str, str]:
    """The answer's text by API; all are the same where the router translates well."""
    return _ask_openai(url, model, question) | {
        "messages": _ask_anthropic(url, model, question),
        "langchain": _ask_langchain(url, model, question),
    }


def _ask_openai(url: str, model: str, question: str) -> dict[str, str]:
    messages: Any = [{"role": "user", "content": question}]
    with openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client:
        chat = client.chat.completions.create(model=model, messages=messages, max_tokens=LIMIT, temperature=0)
        fields: Any = {"model": model, "input": question, "max_output_tokens": LIMIT, "temperature": 0}
        response = client.responses.create(**fields)
        last = list(client.responses.create(**fields, stream=True))[-1]
    assert chat.usage is not None
    assert response.usage is not None
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    return {
        "chat": chat.choices[0].message.content or "",
        "responses": response.output_text,
        "responses stream": last.response.output_text,
    }


def _ask_anthropic(url: str, model: str, question: str) -> str:
    messages: Any = [{"role": "user", "content": question}]
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        counted = client.messages.count_tokens(model=model, messages=messages)
        greedy = {"temperature": 0}  # which the newest models of Anthropic, and so its client's signature, do without
        with client.messages.stream(model=model, messages=messages, max_tokens=LIMIT, extra_body=greedy) as stream:
            message = stream.get_final_message()
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    return "".join(block.text for block in message.content if block.type == "text")


def _ask_langchain(url: str, model: str, question: str) -> str:
    client = ChatOpenAI(
        base_url=url + "/v1",
        api_key=SecretStr("none"),
        model=model,
        max_retries=0,
        temperature=0,
        max_completion_tokens=LIMIT,
    )
    return str(client.invoke(question).text)
