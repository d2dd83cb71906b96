"""check.py MODE JSON TEXT: whether an explanation says what it has to, in both forms."""
import json
import sys


def main():
    mode, document, text = sys.argv[1:4]
    why, words = json.load(open(document)), open(text).read()
    assert why["model"] == "mock" and why["attempts"], why
    for n, attempt in enumerate(why["attempts"], 1):
        candidates = attempt["candidates"]
        assert attempt["attempt"] == n and attempt["policy"] == mode, attempt
        assert 1 <= len(candidates) <= 8 and len(candidates) + attempt["others"]["count"] == 12, attempt
        assert candidates[0]["worker"] == attempt["winner"] and attempt["words"] and attempt["record"], attempt
        assert attempt["prompt_tokens"] > 16 and attempt["queue_ms"] >= 0, attempt
        assert attempt["outcome"] == "completed" or n < len(why["attempts"]), attempt
        if mode == "kv":
            costs = [c["cost"] for c in candidates]
            assert candidates[0]["overlap"]["device"] >= 1, "the winner is not known to hold what it was asked before"
            assert all(c["terms"] for c in candidates), attempt
            if not attempt["sticky"]:
                assert costs[0] <= min(c["cost"] for c in candidates if c["verdict"] == candidates[0]["verdict"]) + 1e-3, costs
        for said in (attempt["winner"], *attempt["words"]):
            assert said.split(";")[0] in words, (said, words)
    print(f"{mode}: {len(why['attempts'])} decision(s); {why['attempts'][-1]['words'][0]}")


main()
