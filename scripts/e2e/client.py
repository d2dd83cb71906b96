"""client.py URL: the official openai client against a running server."""
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model
ask = [{"role": "user", "content": "What is the capital of Germany?"}]

unary = client.chat.completions.create(model=model, messages=ask, temperature=0, max_tokens=24)
assert "Berlin" in unary.choices[0].message.content, unary
assert unary.choices[0].finish_reason == "stop", unary
assert unary.usage.total_tokens == unary.usage.prompt_tokens + unary.usage.completion_tokens, unary

text, finish, usage = "", None, None
for event in client.chat.completions.create(
    model=model, messages=ask, temperature=0, max_tokens=24, stream=True, stream_options={"include_usage": True}
):
    if event.usage:
        usage = event.usage
    for choice in event.choices:
        text += choice.delta.content or ""
        finish = choice.finish_reason or finish
assert text == unary.choices[0].message.content, (text, unary)
assert finish == "stop" and usage.completion_tokens == unary.usage.completion_tokens, (finish, usage)
assert usage.prompt_tokens_details.cached_tokens > 0, usage

again = [client.chat.completions.create(model=model, messages=ask, temperature=1, seed=7, max_tokens=12) for _ in range(2)]
assert again[0].choices[0].message.content == again[1].choices[0].message.content, again

many = client.chat.completions.create(model=model, messages=ask, n=3, seed=1, max_tokens=8, logprobs=True, top_logprobs=2)
assert [c.index for c in many.choices] == [0, 1, 2], many
assert all(len(t.top_logprobs) == 2 for c in many.choices for t in c.logprobs.content), many

stopped = client.chat.completions.create(model=model, messages=ask, temperature=0, max_tokens=24, stop=["Germany"])
assert stopped.choices[0].finish_reason == "stop" and "Germany" not in stopped.choices[0].message.content, stopped

done = client.completions.create(model=model, prompt=["One, two, three,", "Red, green,"], temperature=0, max_tokens=4, echo=True, logprobs=1)
assert done.choices[0].text.startswith("One, two, three,") and len(done.choices) == 2, done
assert done.choices[0].logprobs.token_logprobs[0] is None, done

for bad, error in (
    ({"model": "nobody"}, openai.NotFoundError),
    ({"temperature": -1}, openai.BadRequestError),
    ({"response_format": {"type": "json_object"}}, openai.BadRequestError),
    ({"messages": [{"role": "user", "content": "word " * 20000}]}, openai.BadRequestError),
):
    try:
        client.chat.completions.create(**({"model": model, "messages": ask, "max_tokens": 4} | bad))
    except error as e:
        assert e.body["message"], e
    else:
        raise AssertionError(f"{bad} was accepted")
print("openai", openai.__version__, "ok:", unary.choices[0].message.content)
