"""llama.py MODEL.gguf: tokens per second of llama.cpp (through llama-cpp-python's low-level API), one line a measure.

Prints `NAME THREADS VALUE` with NAME prefill-N, decode-CTX or batch8, the better of flash attention on and off (median of three).
"""
import statistics
import sys
import time

import llama_cpp as L
import numpy as np


@L.llama_log_callback
def quiet(level, text, data):
    pass


L.llama_log_set(quiet, None)
L.llama_backend_init()
model = L.llama_model_load_from_file(sys.argv[1].encode(), L.llama_model_default_params())
rng = np.random.default_rng(1)


def context(threads, flash, seqs=1):
    p = L.llama_context_default_params()
    p.n_ctx, p.n_batch, p.n_ubatch, p.n_seq_max = 2048 * seqs, 512, 512, seqs
    p.n_threads = p.n_threads_batch = threads
    p.flash_attn_type = flash
    return L.llama_init_from_model(model, p)


def run(ctx, batch, tokens):
    """tokens: list of (sequence, position, wants logits)."""
    batch.n_tokens = len(tokens)
    for i, (seq, pos, logits) in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = int(rng.integers(1000, 40000)), pos, 1, seq, logits
    assert L.llama_decode(ctx, batch) == 0


def prefill(ctx, batch, n, seq=0, clear=True):
    mem = L.llama_get_memory(ctx)
    if clear:
        L.llama_memory_clear(mem, True)
    for at in range(0, n, 512):
        run(ctx, batch, [(seq, p, p == n - 1) for p in range(at, min(at + 512, n))])
    L.llama_synchronize(ctx)


def timed(f):
    t = time.perf_counter()
    f()
    return time.perf_counter() - t


batch = L.llama_batch_init(512, 0, 1)
for threads in (1, 2):
    best = {}
    for flash in (0, 1):  # LLAMA_FLASH_ATTN_TYPE_DISABLED, _ENABLED
        ctx = context(threads, flash)
        prefill(ctx, batch, 64)
        for n in (128, 512, 1024):
            v = n / statistics.median(timed(lambda: prefill(ctx, batch, n)) for _ in range(3))
            best[f"prefill-{n}"] = max(best.get(f"prefill-{n}", 0), v)
        for n in (128, 1024):
            def decode():
                for i in range(32):
                    run(ctx, batch, [(0, n + i, True)])
                L.llama_synchronize(ctx)
            speeds = []
            for _ in range(3):
                prefill(ctx, batch, n)
                speeds.append(32 / timed(decode))
            best[f"decode-{n}"] = max(best.get(f"decode-{n}", 0), statistics.median(speeds))
        L.llama_free(ctx)
        ctx = context(threads, flash, 8)
        for s in range(8):
            prefill(ctx, batch, 128, s, s == 0)
        def eight():
            for i in range(32):
                run(ctx, batch, [(s, 128 + i, True) for s in range(8)])
            L.llama_synchronize(ctx)
        best["batch8"] = max(best.get("batch8", 0), 256 / timed(eight))
        L.llama_free(ctx)
    for name, v in best.items():
        print(name, threads, f"{v:.1f}", flush=True)
