#!/usr/bin/env python3
"""peers.py CORPORA [VOCABULARY …]: encode MB/s (10^6 bytes, of processor time) of Hugging Face, gigatoken and fastokens on one thread; ids checked against Hugging Face.

Prints a JSON line per vocabulary, corpus and library. Pieces are of at most 4096 bytes. cold: the first pass of a fresh object; new: the second
half of the corpus after the first half was encoded (caches warm, text new: the honest figure for a server; median of 3 fresh objects); again: median
of passes over text seen before. differ counts pieces whose ids are not Hugging Face's. Writes those to CORPORA/ids for the Go side.
"""
import json, os, statistics, sys, tempfile, time

import vocabularies

corpora, names = sys.argv[1], sys.argv[2:] or ["qwen3", "llama3_1", "smollm2"]


def pieces(b, n=4096):
    out, i = [], 0
    while i < len(b):
        j = min(i + n, len(b))
        while j < len(b) and (b[j] & 0xC0) == 0x80:
            j -= 1
        out.append(b[i:j].decode())
        i = j
    return out


def hf(path):
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(path)
    return lambda s: t.encode(s, add_special_tokens=False).ids


def gigatoken(path):
    import gigatoken
    t = gigatoken.Tokenizer(path)
    return lambda s: t.encode(s)


def fastokens(path):
    import fastokens
    t = fastokens.Tokenizer.from_file(path) if hasattr(fastokens.Tokenizer, "from_file") else fastokens.Tokenizer(open(path).read())
    return lambda s: t.encode(s, add_special_tokens=False).ids


def rate(f, list_):
    n = sum(len(p.encode()) for p in list_)
    t0 = time.process_time()
    for p in list_:
        f(p)
    return n / (time.process_time() - t0) / 1e6


os.makedirs(os.path.join(corpora, "ids"), exist_ok=True)
for name in names:
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(vocabularies.text(name))
        file.flush()
        want = {}
        for make in (hf, gigatoken, fastokens):
            for corpus in ("prose", "code", "multi"):
                ps = pieces(open(os.path.join(corpora, corpus + ".txt"), "rb").read())
                row = dict(impl=make.__name__, vocab=name, corpus=corpus, pieces=len(ps))
                try:
                    f = make(file.name)
                    row["cold"] = rate(f, ps)
                    row["again"] = statistics.median(rate(f, ps) for _ in range(1 if make is hf else 5))
                    fresh = []
                    for _ in range(1 if make is hf else 3):
                        f = make(file.name)
                        rate(f, ps[:len(ps) // 2])
                        fresh.append(rate(f, ps[len(ps) // 2:]))
                    row["new"] = statistics.median(fresh)
                    got = [list(map(int, f(p))) for p in ps]
                    if make is hf:
                        want[corpus] = got
                        json.dump(got, open(os.path.join(corpora, "ids", "%s-%s.json" % (name, corpus)), "w"))
                    row["differ"] = sum(a != b for a, b in zip(got, want[corpus]))
                    for k in ("cold", "again", "new"):
                        row[k] = round(row[k], 2)
                except BaseException as e:  # gigatoken cannot load every vocabulary
                    row["error"] = str(e)[:100]
                print(json.dumps(row), flush=True)
        from tokenizers import Tokenizer
        from tokenizers.decoders import DecodeStream
        t = Tokenizer.from_file(file.name)
        for corpus in ("prose", "multi"):
            ids = t.encode(open(os.path.join(corpora, corpus + ".txt"), "rb").read()[:200000].decode("utf-8", "ignore"), add_special_tokens=False).ids
            ds, t0 = DecodeStream(skip_special_tokens=False), time.process_time()
            for i in ids:
                ds.step(t, i)
            print(json.dumps(dict(impl="hf", vocab=name, corpus=corpus, decode_mtok_s=round(len(ids) / (time.process_time() - t0) / 1e6, 2))), flush=True)
