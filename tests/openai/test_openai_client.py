"""The official OpenAI client against a running nextstate host.

    NEXTSTATE_URL=http://127.0.0.1:8321 NEXTSTATE_MODEL=smollm2:main python tests/openai/test_openai_client.py

NEXTSTATE_API_KEY names a key when the host demands one. Works with any model: what is checked is the protocol. The last
line says how many tests passed and failed; the exit code is 1 when any failed.
"""

import asyncio
import json
import os
import sys
import threading
import time
import traceback

import openai

URL = os.environ.get("NEXTSTATE_URL", "http://127.0.0.1:8321").rstrip("/") + "/v1"
MODEL = os.environ.get("NEXTSTATE_MODEL", "")
KEY = os.environ.get("NEXTSTATE_API_KEY", "")
SETTINGS = dict(base_url=URL, api_key=KEY or "none", max_retries=0, timeout=120)

client = openai.OpenAI(**SETTINGS)

HELLO = [{"role": "user", "content": "Say hello."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
# One token that wins always: a reply that only its limit ends, whatever the model.
ENDLESS = dict(temperature=0, logit_bias={"97": 100})


def chat(**fields):
    return client.chat.completions.create(
        **{"model": MODEL, "messages": HELLO, "max_tokens": 24, **fields}
    )


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def models_are_listed_and_retrieved():
    names = [model.id for model in client.models.list()]
    assert MODEL in names, names
    assert client.models.retrieve(MODEL).id == MODEL


def a_reply_has_text_usage_and_a_version():
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=HELLO, max_tokens=24
    )
    reply = raw.parse()
    choice = reply.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert 1 <= reply.usage.completion_tokens <= 24
    assert raw.headers["x-policy-version"].isdigit()
    assert f"@v{raw.headers['x-policy-version']}" in reply.system_fingerprint
    assert raw.headers["x-session-id"]


def a_stream_comes_in_pieces_and_ends_with_usage():
    pieces, finish, usage, ids = [], None, None, set()
    for chunk in chat(stream=True, stream_options={"include_usage": True}):
        ids.add(chunk.id)
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            if choice.delta.content:
                pieces.append(choice.delta.content)
            finish = choice.finish_reason or finish
    assert len(pieces) > 1, pieces
    assert finish in ("stop", "length") and len(ids) == 1
    assert usage.completion_tokens >= len(pieces)


def a_seed_makes_the_stream_and_the_whole_reply_the_same():
    whole = chat(seed=7, temperature=1.0).choices[0].message.content
    pieces = [
        choice.delta.content or ""
        for chunk in chat(seed=7, temperature=1.0, stream=True)
        for choice in chunk.choices
    ]
    assert "".join(pieces) == whole


def log_probs_spell_the_reply():
    reply = chat(logprobs=True, top_logprobs=3, temperature=0)
    tokens = reply.choices[0].logprobs.content
    # Bytes that are no text (a model may sample any) are shown as U+FFFD, on both sides.
    spelled = b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace")
    content = reply.choices[0].message.content
    plain = lambda text: text.replace("\ufffd", "").strip()
    assert plain(spelled) == plain(content), (spelled, content)
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        # Greedy: the most likely one was taken.
        assert token.top_logprobs[0].token == token.token
    streamed = [
        token
        for chunk in chat(logprobs=True, temperature=0, stream=True)
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    assert [token.logprob for token in streamed] == [token.logprob for token in tokens]


def limits_and_stops_end_a_reply():
    reply = chat(max_tokens=5, **ENDLESS)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 5
    text = reply.choices[0].message.content
    new = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_completion_tokens=3, **ENDLESS
    )
    assert new.usage.completion_tokens == 3
    stopped = chat(max_tokens=5, stop=[text[:2]], **ENDLESS)
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content == ""


def a_forced_call_is_structured():
    named = {"type": "function", "function": {"name": "weather"}}
    question = [{"role": "user", "content": "What is the weather in Oslo?"}]
    fields = dict(messages=question, tools=[WEATHER], tool_choice=named, temperature=0, max_tokens=64)
    choice = chat(**fields).choices[0]
    if choice.finish_reason != "tool_calls":
        # A small model may write no valid arguments; then its text stays text.
        assert choice.message.content is not None and not choice.message.tool_calls, choice
        return
    call = choice.message.tool_calls[0]
    assert call.function.name == "weather" and call.id
    assert isinstance(json.loads(call.function.arguments), dict)
    with client.chat.completions.stream(model=MODEL, **fields) as stream:
        stream.until_done()
        final = stream.get_final_completion()
    streamed = final.choices[0].message.tool_calls[0]
    assert streamed.function.name == "weather"
    assert streamed.function.arguments == call.function.arguments
    history = question + [
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "Rain, 8 degrees."},
    ]
    answer = chat(messages=history, tools=[WEATHER])
    assert answer.choices[0].message.role == "assistant"


def wrong_requests_raise_the_right_errors():
    bad = raises(openai.BadRequestError, lambda: chat(temperature=5))
    assert bad.param == "temperature" and bad.type == "invalid_request_error"
    missing = raises(openai.NotFoundError, lambda: chat(model="no-such-model"))
    assert missing.code == "model_not_found" and MODEL in str(missing)
    long = [{"role": "user", "content": "word " * 200_000}]
    long = raises(openai.BadRequestError, lambda: chat(messages=long))
    assert long.code == "context_length_exceeded"
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    image = raises(openai.BadRequestError, lambda: chat(messages=image))
    assert image.param == "messages[0].content[0]"
    raises(openai.BadRequestError, lambda: chat(n=2))
    raises(openai.BadRequestError, lambda: chat(response_format={"type": "json_object"}))
    raises(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"))


def a_wrong_key_is_refused_where_keys_are_on():
    stranger = openai.OpenAI(**{**SETTINGS, "api_key": "sk-wrong"})
    if KEY:
        error = raises(openai.AuthenticationError, lambda: list(stranger.models.list()))
        assert error.code == "invalid_api_key"
    else:
        assert list(stranger.models.list())


def a_cancelled_stream_frees_the_host():
    stream = chat(stream=True, max_tokens=2000, **ENDLESS)
    seen = 0
    for chunk in stream:
        seen += 1
        if seen == 4:
            break
    stream.close()
    started = time.monotonic()
    assert chat(max_tokens=2, **ENDLESS).usage.completion_tokens == 2
    assert time.monotonic() - started < 60


def two_streams_run_side_by_side():
    first_token, long_done, order = threading.Event(), threading.Event(), []

    def long():
        for _ in chat(stream=True, max_tokens=400, **ENDLESS):
            first_token.set()
        long_done.set()
        order.append("long")

    thread = threading.Thread(target=long)
    thread.start()
    assert first_token.wait(60)
    for _ in chat(stream=True, max_tokens=4, **ENDLESS):
        pass
    order.append("short")
    thread.join()
    assert long_done.is_set() and order == ["short", "long"], order


def the_asynchronous_client_works_too():
    async def run():
        async with openai.AsyncOpenAI(**SETTINGS) as other:
            calls = [
                other.chat.completions.create(
                    model=MODEL, messages=HELLO, max_tokens=4, seed=seed
                )
                for seed in range(3)
            ]
            return await asyncio.gather(*calls)

    replies = asyncio.run(run())
    assert len({reply.id for reply in replies}) == 3


def a_session_is_echoed_and_a_rating_is_taken():
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=4,
        extra_headers={"x-session-id": "a-session", "x-turn-type": "main"},
    )
    assert raw.headers["x-session-id"] == "a-session"
    assert raw.headers["x-turn-type"] == "main"
    rating = {"id": raw.parse().id, "rating": "up"}
    taken = client.post("/feedback", body=rating, cast_to=object)
    assert taken["recorded"] is True
    unknown = {"id": "chatcmpl-none", "rating": "up"}
    raises(openai.NotFoundError, lambda: client.post("/feedback", body=unknown, cast_to=object))


TESTS = [
    models_are_listed_and_retrieved,
    a_reply_has_text_usage_and_a_version,
    a_stream_comes_in_pieces_and_ends_with_usage,
    a_seed_makes_the_stream_and_the_whole_reply_the_same,
    log_probs_spell_the_reply,
    limits_and_stops_end_a_reply,
    a_forced_call_is_structured,
    wrong_requests_raise_the_right_errors,
    a_wrong_key_is_refused_where_keys_are_on,
    a_cancelled_stream_frees_the_host,
    two_streams_run_side_by_side,
    the_asynchronous_client_works_too,
    a_session_is_echoed_and_a_rating_is_taken,
]


def main():
    if not MODEL:
        sys.exit("NEXTSTATE_MODEL names the model to ask, for example smollm2:main")
    failed = 0
    for test in TESTS:
        name = test.__name__.replace("_", " ")
        try:
            test()
            print(f"ok      {name}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}", flush=True)
            traceback.print_exc()
    print(f"{len(TESTS) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
