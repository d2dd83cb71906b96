"""What scripts/peer/run.sh asks: peer.py DYNAMO WORK."""

import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time

DYNAMO, WORK = sys.argv[1], sys.argv[2]
SHORT = bool(os.environ.get("SHORT"))
PROMPTS = int(os.environ.get("PROMPTS", 3 if SHORT else 8))
TOKENS = int(os.environ.get("TOKENS", 300 if SHORT else 600))
FAULTS = int(os.environ.get("FAULTS", 2 if SHORT else 12))
TRANSFER = os.environ.get("TRANSFER", "auto")
CONTEXT = max(1024, 2 * TOKENS)
BLOCKS = CONTEXT // 16 + 4  # of a small cache, 360 KiB each
WORDS = "river stone light garden winter engine paper silver morning road bridge cloud letter window music ocean".split()

running, failures = [], []
rng = random.Random(int(os.environ.get("SEED", 1)))


def check(ok, what):
    """Notes what does not hold; the script fails in the end."""
    if not ok:
        failures.append(what)
        print("FAIL:", what, flush=True)


def start(name, *args):
    """Starts a process and waits for the file that says that it serves."""
    path = f"{WORK}/{name}.addr"
    if os.path.exists(path):
        os.remove(path)
    log = open(f"{WORK}/{name}.log", "ab")
    p = subprocess.Popen([DYNAMO, *args, "--addr-file", path], stdout=log, stderr=log)
    running.append(p)
    until(name, lambda: p.poll() is not None or os.path.exists(path) and os.path.getsize(path))
    if p.poll() is not None:
        raise SystemExit(f"{name} does not start: " + open(f"{WORK}/{name}.log").read()[-3000:])
    return p


def until(what, holds, seconds=120):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: it does not come")
        time.sleep(0.02)


def stop(p, how=signal.SIGTERM):
    if p in running:
        running.remove(p)
        p.send_signal(how)
        p.send_signal(signal.SIGCONT)
        p.wait(60)


def text():
    """One that shares nothing with others."""
    return f"Text {rng.random()}. " + " ".join(rng.choice(WORDS) for _ in range(TOKENS))


class Front:
    """The frontend that everything is asked through."""

    def __init__(self, *args):
        self.process = start("front", "frontend", "--http-port", "0", *args)
        self.address = open(f"{WORK}/front.addr").read().strip()

    def get(self, path):
        c = http.client.HTTPConnection(self.address, timeout=60)
        c.request("GET", path)
        return c.getresponse().read().decode()

    def has(self, number):
        return any(i["instance_id"] == number and i["state"] == "ready" for i in json.loads(self.get("/health")).get("instances") or [])

    def wait(self, number):
        """Until there is the worker with that number."""
        until("the worker", lambda: self.has(number))

    def ask(self, prompt, worker=0, n=8):
        """An answer, the seconds until its first token, the tokens found and where they are from."""
        body = {"model": "smollm2", "prompt": prompt, "max_tokens": n, "stream": True, "stream_options": {"include_usage": True}, "logprobs": 1, "temperature": 0, "ignore_eos": True}
        headers = {"Content-Type": "application/json"}
        if worker:
            headers["X-Dynamo-Worker-Instance-Id"] = str(worker)
        c = http.client.HTTPConnection(self.address, timeout=300)
        began = time.monotonic()
        c.request("POST", "/v1/completions", json.dumps(body), headers)
        r = c.getresponse()
        if r.status != 200:
            check(False, f"status {r.status}: {r.read()[:500]}")
            return "", 0, 0, {}
        first, said, usage = None, [], {}
        for line in r:
            if line.startswith(b"data: {"):
                first = first or time.monotonic() - began
                event = json.loads(line[6:])
                said += [(x["text"], (x.get("logprobs") or {}).get("token_logprobs")) for x in event.get("choices") or []]
                usage = event.get("usage") or usage
        attempts = json.loads(self.get(f"/v1/requests/{r.getheader('X-Request-Id')}/explain"))["attempts"]
        said = "".join(t for t, _ in said), [p for _, l in said for p in l or []]
        return said, first, (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0), attempts[-1].get("fetch") or {}


def worker(number, *args):
    p = start(f"worker{number}", "worker", "smollm2", "--worker-id", str(number), "--threads", "1", "--context-length", str(CONTEXT), "--kv-transfer", TRANSFER, *args)
    front.wait(number)
    return p


def settle():
    """Until the frontend knows what the workers hold."""
    time.sleep(0.3)


def compare(rows, name, lender_args, lose):
    """Has worker 1 compute prompts and worker 2 fetch them."""
    lender = worker(1, *lender_args)
    times = {"computed": [], "peer": [], "own cache": []}
    for i in range(PROMPTS):
        prompt = text()
        want, computed, _, _ = front.ask(prompt, 1)
        if lose:
            lose()
        settle()
        got, fetched, cached, fetch = front.ask(prompt, 2)
        again, own, _, _ = front.ask(prompt, 2)
        check(got == want and again == want, f"{name}, prompt {i}: got {got}, want {want}")
        check(fetch.get("outcome") == "fetched" and cached >= 16 * fetch["blocks"] - 16, f"{name}, prompt {i}: {cached} tokens found, {fetch}")
        for key, t in zip(times, (computed, fetched, own)):
            times[key].append(1e3 * t)
    rows.append((name, *(statistics.median(t) for t in times.values())))
    check(SHORT or statistics.median(times["peer"]) < statistics.median(times["computed"]) / 2, f"{name}: fetching is not quicker than computing: {times}")
    stop(lender)


def fault(name, strike, outcomes):
    """Has something befall the lender while it is asked to lend."""
    seen = {}
    for i in range(FAULTS):
        lender = worker(1)
        prompt = text()
        want, _, _, _ = front.ask(prompt, 1)
        settle()
        timer = threading.Timer(rng.random() * 0.02, strike, [lender])
        timer.start()
        got, first, _, fetch = front.ask(prompt, 2)
        timer.join()
        check(got == want, f"{name} {i}: got {got}, want {want}")
        outcome = fetch.get("outcome", "not asked for")
        check(outcome in outcomes, f"{name} {i}: {fetch}")
        seen[outcome] = seen.get(outcome, 0) + 1
        stop(lender, signal.SIGKILL)
        until("its end", lambda: not front.has(1))
    print(f"the lender is {name}: {FAULTS} answers are right; the KV was {seen}", flush=True)


def main():
    global front
    rows = []
    front = Front()
    worker(2, "--kv-cache-bytes", "512MiB")
    compare(rows, "G1 of a peer", ["--kv-cache-bytes", "512MiB"], None)

    def others():
        """Prompts that take all of the lender's cache."""
        for _ in range(BLOCKS * 16 // TOKENS + 1):
            front.ask(text(), 1, 1)

    compare(rows, "G2 of a peer", ["--kv-cache-bytes", f"{BLOCKS * 360}KiB", "--kvbm-cpu-cache-gb", "1"], others)
    print(f"\n{'ms to first token':22}{'computed':>10}{'peer':>10}{'own cache':>11}")
    for name, *times in rows:
        print(f"{name:22}" + "".join(f"{t:{w}.1f}" for t, w in zip(times, (10, 10, 11))), flush=True)
    print()
    any_end = {"fetched", "refused", "slow", "lost", "gone", "not asked for"}
    fault("killed", lambda p: p.kill(), any_end)
    fault("stopped", lambda p: p.send_signal(signal.SIGSTOP), any_end)
    fault("drained", lambda p: p.send_signal(signal.SIGTERM), any_end)
    stop(front.process)
    front = Front("--kv-peer-fetch", "off")
    front.wait(2)
    worker(1)
    prompt = text()
    want, _, _, _ = front.ask(prompt, 1)
    settle()
    got, _, cached, fetch = front.ask(prompt, 2)
    check(got == want and cached < 64 and not fetch, f"off: {cached} tokens found, {fetch}")


try:
    main()
finally:
    for p in list(running):
        stop(p, signal.SIGKILL)
if failures:
    for name in sorted(os.listdir(WORK)):
        if name.endswith(".log"):
            print(name, open(f"{WORK}/{name}").read()[-2000:])
    raise SystemExit(f"{len(failures)} failures")
print("all answers are those of a worker that computes")
