"""Checks of scripts/vllm/run.sh, with Python's own library alone.

answers FRONTEND SERVER        what comes through the frontend is what the server answers
killed FRONTEND SERVER PID WHERE   a server is killed in the middle of answers; they go on at WHERE
"""
import json
import os
import random
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.request

WORDS = "the quick brown fox jumps over a lazy dog while seven wizards brew some tea near an old stone bridge".split()


def post(url, body, stream=None):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        if stream is None:
            return json.load(response)
        for line in response:
            line = line.decode().strip()
            if line.startswith("data: ") and line != "data: [DONE]":
                stream(json.loads(line[6:]))


def prompt(seed, words=40):
    r = random.Random(seed)
    return " ".join(r.choice(WORDS) for _ in range(words))


def body(seed, **more):
    return {"model": "smollm2", "prompt": prompt(seed), "max_tokens": 24, "temperature": 0, **more}


def ok(what, detail=""):
    print(f"ok: {what}" + (f": {detail}" if detail else ""), flush=True)


def answers(front, server):
    n = 12
    for seed in range(n):
        ours, theirs = post(front + "/v1/completions", body(seed)), post(server + "/v1/completions", body(seed))
        a, b = ours["choices"][0], theirs["choices"][0]
        if a["text"] != b["text"] or a["finish_reason"] != b["finish_reason"]:
            sys.exit(f"prompt {seed}: {a!r}, the server says {b!r}")
        if ours["usage"]["prompt_tokens"] != theirs["usage"]["prompt_tokens"] or ours["usage"]["completion_tokens"] != theirs["usage"]["completion_tokens"]:
            sys.exit(f"prompt {seed}: usage {ours['usage']}, the server says {theirs['usage']}")
    ok("greedy text and usage equal the server's own", f"{n} prompts")
    stops = 0
    for seed in range(4):
        stop = post(server + "/v1/completions", body(seed))["choices"][0]["text"][8:12]
        a = post(front + "/v1/completions", body(seed, stop=[stop]))["choices"][0]
        b = post(server + "/v1/completions", body(seed, stop=[stop]))["choices"][0]
        if a["text"] != b["text"] or a["finish_reason"] != b["finish_reason"]:
            sys.exit(f"stop {stop!r}: {a!r}, the server says {b!r}")
        stops += a["finish_reason"] == "stop"
    ok("stop strings", f"{stops} of 4 stopped")
    a = post(front + "/v1/completions", body(3, logprobs=3))["choices"][0]["logprobs"]
    b = post(server + "/v1/completions", body(3, logprobs=3))["choices"][0]["logprobs"]
    worst = max(abs(x - y) for x, y in zip(a["token_logprobs"], b["token_logprobs"]))
    if a["tokens"] != b["tokens"] or worst > 0.02:
        sys.exit(f"logprobs: {a}, the server says {b}")
    ok("logprobs", f"largest difference {worst:.5f}")
    usage = {}
    post(front + "/v1/chat/completions", {"model": "smollm2", "messages": [{"role": "user", "content": prompt(1000, 150)}], "max_tokens": 2, "temperature": 0})
    usage = post(front + "/v1/chat/completions", {"model": "smollm2", "messages": [{"role": "user", "content": prompt(1000, 150)}], "max_tokens": 2, "temperature": 0})["usage"]
    if usage["prompt_tokens_details"]["cached_tokens"] < 32:
        sys.exit(f"cached tokens: {usage}")
    ok("cached tokens are reported", str(usage["prompt_tokens_details"]["cached_tokens"]))
    post(front + "/v1/completions", body(5, kv_transfer_params={"do_remote_prefill": True}))
    post(server + "/v1/completions", body(6))
    ok("forged kv_transfer_params are dropped; the server lives")
    guided(front)
    lora(front, server)
    gone(front, server)


def guided(front):
    animals = ["hedgehog", "albatross", "iguana"]
    url = front + "/v1/chat/completions"
    chat = {"model": "smollm2", "messages": [{"role": "user", "content": "Name an animal, as JSON if you like."}], "max_tokens": 60}
    for name, more, fits in [
        ("structured_outputs.choice", {"structured_outputs": {"choice": animals}}, lambda t: t in animals),
        ("structured_outputs.regex", {"structured_outputs": {"regex": "[0-9]{3}-[a-f]{4}"}}, lambda t: re.fullmatch("[0-9]{3}-[a-f]{4}", t)),
        ("response_format json_schema", {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {
            "type": "object", "properties": {"age": {"type": "integer", "minimum": 1, "maximum": 9}, "kind": {"enum": animals}}, "required": ["age", "kind"], "additionalProperties": False}}}},
         lambda t: json.loads(t)["kind"] in animals and json.loads(t)["age"] in range(1, 10)),
        ("nvext.guided_choice", {"nvext": {"guided_choice": animals}}, lambda t: t in animals),
    ]:
        for temperature in (0, 1.2):
            text = post(url, {**chat, **more, "temperature": temperature, "seed": 4})["choices"][0]["message"]["content"]
            if not fits(text):
                sys.exit(f"{name}: the answer is {text!r}")
    try:
        post(url, {**chat, "response_format": {"type": "json_object"}, "structured_outputs": {"choice": animals}})
        sys.exit("two restrictions at once are accepted")
    except urllib.error.HTTPError as e:
        if e.code != 400:
            sys.exit(f"two restrictions at once: {e.code}")
    ok("guided decoding", "choice, regex, JSON schema, nvext; greedy and drawn; two at once are refused")


def lora(front, server):
    with urllib.request.urlopen(front + "/v1/models", timeout=30) as response:
        models = {m["id"]: m.get("parent") for m in json.load(response)["data"]}
    if models.get("ada") != "smollm2":
        sys.exit(f"the list of models lacks the adapter: {models}")
    differs = 0
    for seed in range(6):
        ours = post(front + "/v1/completions", {**body(seed), "model": "ada"})
        theirs = post(server + "/v1/completions", {**body(seed), "model": "ada"})["choices"][0]["text"]
        base = post(front + "/v1/completions", body(seed))["choices"][0]["text"]
        if ours["choices"][0]["text"] != theirs or ours["model"] != "ada":
            sys.exit(f"adapter, prompt {seed}: {ours}, the server says {theirs!r}")
        differs += theirs != base
    if not differs:
        sys.exit("the adapter changes nothing")
    ok("LoRA adapter by its name", f"6 of 6 texts equal the server's own, {differs} differ from the model's")


def running(server):
    with urllib.request.urlopen(server + "/metrics", timeout=30) as response:
        for line in response.read().decode().splitlines():
            if line.startswith("vllm:num_requests_running"):
                return float(line.rsplit(" ", 1)[1])
    sys.exit("the server's metrics lack vllm:num_requests_running")


def gone(front, server):
    class Enough(Exception):
        pass

    def stream(event):
        raise Enough

    try:
        post(front + "/v1/completions", body(7, max_tokens=1500, stream=True, ignore_eos=True), stream)
    except Enough:
        pass
    began = time.time()
    while running(server) > 0:
        if time.time() - began > 2:
            sys.exit("the server still runs a request whose client is gone")
        time.sleep(0.05)
    ok("a client that goes away ends its request at the server", f"within {time.time() - began:.2f} s")


def killed(front, server, pid, where):
    """SERVER has the undisturbed answers, PID leads the process group to kill."""
    n = 8
    want = [post(server + "/v1/completions", body(100 + i, max_tokens=60, ignore_eos=True))["choices"][0]["text"] for i in range(n)]
    got, errors = [""] * n, []

    def ask(i):
        def stream(event):
            if "error" in event:
                errors.append(event["error"])
            for choice in event.get("choices", []):
                got[i] += choice["text"]

        try:
            post(front + "/v1/completions", body(100 + i, max_tokens=60, ignore_eos=True, stream=True), stream)
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    while sum(len(text) > 0 for text in got) < n // 2:
        time.sleep(0.01)
    os.killpg(int(pid), signal.SIGKILL)
    for t in threads:
        t.join()
    same = sum(a == b for a, b in zip(got, want))
    if errors or same < n:
        sys.exit(f"{same} of {n} texts are as undisturbed; errors: {errors}; {[(a, b) for a, b in zip(got, want) if a != b]}")
    ok(f"kill -9 of a server in the middle of greedy answers, which go on at {where}: text as undisturbed", f"{n} of {n}")


globals()[sys.argv[1]](*sys.argv[2:])
