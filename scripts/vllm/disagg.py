"""Checks of scripts/vllm/disagg.sh, with Python's own library alone.

identical FRONTEND PREFILL DECODE N   answers in two parts are what one server answers, and their KV moved
cancelled FRONTEND PREFILL DECODE     a client that goes away ends its request at both servers
killed FRONTEND PREFILL DECODE PID    the prefill server is killed; requests are answered all the same
calm PID                              puts the threads of a process that never rest at idle priority
"""
import json
import os
import random
import signal
import sys
import threading
import time
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


def body(salt, words=None, **more):
    r = random.Random(salt)
    words = words or r.choice([3, 20, 60, 150, 400])
    return {"model": "smollm2", "prompt": " ".join(r.choice(WORDS) for _ in range(words)), "max_tokens": 24, "temperature": 0, "return_token_ids": True, **more}


def ok(what, detail=""):
    print(f"ok: {what}" + (f": {detail}" if detail else ""), flush=True)


def metrics(server):
    found = {}
    with urllib.request.urlopen(server + "/metrics", timeout=30) as response:
        for line in response.read().decode().splitlines():
            if line.startswith("vllm:"):
                name, value = line.rsplit(" ", 1)
                key = name.split("{")[0]
                if 'source="' in name:
                    key += ":" + name.split('source="')[1].split('"')[0]
                found[key] = found.get(key, 0) + float(value)
    return found


def more(before, after, name):
    return int(after.get(name, 0) - before.get(name, 0))


def both(front, server, bodies):
    """The answers by way of the frontend, four at a time, and the server's own, with a
    cache of its own."""
    ours = [None] * len(bodies)

    def ask(first):
        for i in range(first, len(bodies), 4):
            ours[i] = post(front + "/v1/completions", bodies[i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return ours, lambda: [post(server + "/v1/completions", {**b, "cache_salt": "own"}) for b in bodies]


def compare(ours, theirs):
    same = 0
    for a, b in zip(ours, theirs):
        if a is None:
            continue
        x, y, u, v = a["choices"][0], b["choices"][0], a["usage"], b["usage"]
        same += x["token_ids"] == y["token_ids"] and x["text"] == y["text"] and x["finish_reason"] == y["finish_reason"] and u["prompt_tokens"] == v["prompt_tokens"] and u["completion_tokens"] == v["completion_tokens"]
    return same


def identical(front, prefill, decode, n):
    n, salt = int(n), time.time_ns() % 10**6
    bodies = [body(salt + i) for i in range(n)]
    before, before_p = metrics(decode), metrics(prefill)
    ours, own = both(front, prefill, bodies)
    after, after_p = metrics(decode), metrics(prefill)
    theirs = own()
    same, prompts = compare(ours, theirs), sum(b["usage"]["prompt_tokens"] for b in theirs)
    moved = more(before, after, "vllm:prompt_tokens_by_source_total:external_kv_transfer")
    computed = more(before, after, "vllm:prompt_tokens_by_source_total:local_compute")
    hits = more(before, after, "vllm:external_prefix_cache_hits_total")
    if same < n or moved < prompts * 0.9:
        sys.exit(f"{same} of {n} as one server answers; of {prompts} ids of prompts {moved} moved, {computed} were computed at the decode server: "
                 + str([(a and a["choices"][0]["text"], b["choices"][0]["text"]) for a, b in zip(ours, theirs) if a is None or a["choices"][0]["text"] != b["choices"][0]["text"]][:3]))
    ok("greedy answers in two parts are what one server answers", f"identical {same}/{n}")
    spent = after.get("vllm:nixl_xfer_time_seconds_sum", 0) - before.get("vllm:nixl_xfer_time_seconds_sum", 0)
    transfers = more(before, after, "vllm:nixl_xfer_time_seconds_count")
    ok("their KV moved", f"of {prompts} ids of prompts {moved} by transfer ({hits} external cache hits, {more(before, after, 'vllm:nixl_bytes_transferred_sum') / 1e6:.0f} MB in "
       f"{transfers} transfers of {1000 * spent / max(transfers, 1):.0f} ms on average), {computed} computed at the decode server, "
       f"{more(before_p, after_p, 'vllm:prompt_tokens_by_source_total:local_compute')} at the prefill server")
    if n < 8:
        return
    again = post(front + "/v1/completions", bodies[0] | {"prompt": bodies[0]["prompt"] + " and more"})
    seeded = [body(salt + 900 + i, temperature=0.9, seed=7) for i in range(8)]
    ours, own = both(front, prefill, seeded)
    same = compare(ours, own())
    if same < len(seeded):
        sys.exit(f"answers drawn with a seed: {same} of {len(seeded)} are what one server answers")
    ok("so are those drawn with a client's seed", f"identical {same}/{len(seeded)}")
    x = post(front + "/v1/completions", body(salt + 950, logprobs=3))["choices"][0]["logprobs"]
    y = post(prefill + "/v1/completions", body(salt + 950, logprobs=3, cache_salt="own"))["choices"][0]["logprobs"]
    worst = max(abs(a - b) for a, b in zip(x["token_logprobs"], y["token_logprobs"]))
    if x["tokens"] != y["tokens"] or worst > 0.02:
        sys.exit(f"logprobs: {x}, the server says {y}")
    ok("and their logprobs", f"largest difference {worst:.5f}")
    long = body(salt + 960, 200, max_tokens=2)
    post(front + "/v1/completions", long)
    usage = post(front + "/v1/completions", long)["usage"]
    if usage["prompt_tokens_details"]["cached_tokens"] < 32:
        sys.exit(f"cached tokens: {usage}, {again['usage']}")
    ok("cached tokens are the prefill server's", f"{usage['prompt_tokens_details']['cached_tokens']} of {usage['prompt_tokens']}")


def paths(front):
    """How many requests the frontend served by which path."""
    found = {}
    with urllib.request.urlopen(front + "/metrics", timeout=30) as response:
        for line in response.read().decode().splitlines():
            if line.startswith("dynamo_disagg_requests_total{"):
                found[line.split('path="')[1].split('"')[0]] = int(float(line.rsplit(" ", 1)[1]))
    return found


def busy(server):
    return metrics(server).get("vllm:num_requests_running", 0) + metrics(server).get("vllm:num_requests_waiting", 0)


def cancelled(front, prefill, decode):
    class Enough(Exception):
        pass

    def stream(event):
        raise Enough

    try:
        post(front + "/v1/completions", body(time.time_ns(), 60, max_tokens=1500, stream=True, ignore_eos=True), stream)
    except Enough:
        pass
    began = time.time()
    while busy(prefill) + busy(decode) > 0:
        if time.time() - began > 10:
            sys.exit("a server still has a request whose client is gone")
        time.sleep(0.05)
    ok("a client that goes away ends its request at both servers", f"within {time.time() - began:.2f} s")


def killed(front, prefill, decode, pid):
    """PID leads the prefill server's process group."""
    bodies = [body(time.time_ns() % 10**6 + i, 150) for i in range(12)]
    timer = threading.Timer(1.5, lambda: os.killpg(int(pid), signal.SIGKILL))
    before = paths(front)
    timer.start()
    ours, _ = both(front, prefill, bodies)
    timer.join()
    served = {k: v - before.get(k, 0) for k, v in paths(front).items() if v > before.get(k, 0)}
    if not served.keys() - {"handover"}:
        sys.exit(f"all requests were served before the server was killed: {served}")
    theirs = [post(decode + "/v1/completions", {**b, "cache_salt": "own"}) for b in bodies]
    same = compare(ours, theirs)
    if same < len(bodies):
        sys.exit(f"{same} of {len(bodies)} answers are what one server answers")
    ok("kill -9 of the prefill server: the decode server computes what is missing", f"identical {same}/{len(bodies)}, served by {served}")


def calm(pid):
    def spent():
        times = {}
        for tid in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{tid}/stat") as f:
                    fields = f.read().rsplit(") ", 1)[1].split()
                times[int(tid)] = int(fields[11]) + int(fields[12])
            except OSError:
                pass
        return times

    before = spent()
    time.sleep(2)
    for tid, ticks in spent().items():
        if tid != int(pid) and ticks - before.get(tid, ticks) > 10:
            os.sched_setscheduler(tid, os.SCHED_IDLE, os.sched_param(0))


globals()[sys.argv[1]](*sys.argv[2:])
