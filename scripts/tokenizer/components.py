#!/usr/bin/env python3
"""components.py OUT.jsonl.gz: what the Hugging Face library makes of small tokenizers, one for each component and flag that is supported.

The published vocabularies (golden.py) use a few components each; these files cover the others. One gzipped file of JSON lines: a header
with the library's version, then per tokenizer its tokenizer.json (tokenizer), snippets and sequences as in golden.py.
Needs: pip install tokenizers==0.23.3
"""
import copy, gzip, json, random, sys

import tokenizers
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

TEXTS = ["", " ", "  ", "Hello, world!  It's 12 o'clock", " leading", "trailing ", "a  b\tc\n\nd", "▁mark ▁▁x", "naïve café ÀÉ e\u0301 İstanbul ΣΑΣ ß ﬁ ① ½",
         "日本語 テスト 中文。", "ab12cd345", "foo-bar_baz... (x)", "<s>Hello</s> <mask> world<mask>", "a<w>b <w> c<w>.<w>", "x <l> y<l>z  <l>", "x <r>  y<r>z<r>\n", "<n>A <N> É<n>",
         "unknown: \u4e01\U0001F600!\u4e02\u4e03", "Ünïcödé\u0323\u0307 \u212b", "l'été d'une fée", "aaaaabbbbb", "hello hello  hello", "\u00a0nbsp\u2003em\u3000", "\x00\x01ctl\x7f", "1 ² Ⅷ ٣", "don't we'll I'M", "<sp> tok<sp>", "$+<=>^`|~ ¿§", "क़ख़ ड़", "한글 각", "a" + "\u0301\u0323\u0308" * 14 + "b", "\u0e01\u0e48\u0e38 x", "'\u017ft e\u0323\u0301 \u0301\u0323 \u0344"]


def model(level, **over):
    """A little BPE: single characters (a byte-level alphabet or those of TEXTS) and some merges."""
    if level:
        alphabet = sorted(ByteLevel.alphabet())
        merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "h"), ("Ġ", "hello"), ("Ġ", "w"), ("o", "r"), ("Ġw", "or"), ("Ã", "©"), ("i", "n"), ("a", "a"), ("aa", "a"), ("Ġ", "Ġ"), ("1", "2")]
    else:
        alphabet = sorted(set("".join(TEXTS).replace(" ", "") + "▁ ") - set("\u4e01\u4e02\u4e03\U0001F600\x00\x01"))
        merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "h"), ("▁", "hello"), ("▁", "w"), ("o", "r"), ("▁w", "or"), ("i", "n"), ("a", "a"), ("aa", "a"), ("▁", "▁"), ("1", "2"), ("t", "r"), ("a", "b")]
    vocab = {}
    for t in ["<unk>"] + (["<0x%02X>" % b for b in range(256)] if over.get("byte_fallback") else []) + alphabet + ["".join(m) for m in merges] + over.pop("extra", []):
        vocab.setdefault(t, len(vocab))
    m = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False, byte_fallback=False, ignore_merges=False, vocab=vocab, merges=merges)
    m.update(over)
    return m


def added(*specs):
    out = []
    for content, flags in specs:
        out.append(dict(id=5000 + len(out), content=content, single_word="w" in flags, lstrip="l" in flags, rstrip="r" in flags, normalized="n" in flags, special="s" in flags))
    return out


ADDED = added(("<s>", "s"), ("</s>", "s"), ("<mask>", "sl"), ("<w>", "w"), ("<l>", "l"), ("<r>", "r"), ("<n>", "n"), ("<sp> ", "sr"))
LEVEL = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)


def seq(kind, *parts):
    return {"type": "Sequence", {"n": "normalizers", "p": "pretokenizers", "d": "decoders", "t": "processors"}[kind]: list(parts)}


def replace(s, c, kind="String"):
    return dict(type="Replace", pattern={kind: s}, content=c)


def split(pattern, behavior, invert=False, kind="Regex"):
    return dict(type="Split", pattern={kind: pattern}, behavior=behavior, invert=invert)


def metaspace(scheme, split=True):
    return dict(type="Metaspace", replacement="▁", prepend_scheme=scheme, split=split)


def strip(c, start, stop):
    return dict(type="Strip", content=c, start=start, stop=stop)


def template(single):
    pieces = [{"Sequence": {"id": "A", "type_id": 0}} if p == "A" else {"SpecialToken": {"id": p, "type_id": 0}} for p in single]
    return dict(type="TemplateProcessing", single=pieces, pair=pieces + [{"Sequence": {"id": "B", "type_id": 1}}],
                special_tokens={"<s>": dict(id="<s>", ids=[1], tokens=["<s>"]), "</s>": dict(id="</s>", ids=[2, 3], tokens=["</s>", "x"])})


def configs():
    c = lambda name, level, normalizer=None, pre=None, decoder=None, post=None, tokens=(), **m: (name, dict(
        version="1.0", truncation=None, padding=None, added_tokens=list(tokens), normalizer=normalizer, pre_tokenizer=pre, post_processor=post, decoder=decoder, model=model(level, **m)))
    for f in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt"):
        yield c("normalizer " + f, False, dict(type=f), unk_token="<unk>", tokens=ADDED)
    yield c("normalizer NFD StripAccents Lowercase", False, seq("n", dict(type="NFD"), seq("n", dict(type="StripAccents"), dict(type="Lowercase"))), unk_token="<unk>")
    yield c("normalizer Strip", False, dict(type="Strip", strip_left=True, strip_right=True), unk_token="<unk>", tokens=ADDED)
    yield c("normalizer Strip left", False, dict(type="Strip", strip_left=True, strip_right=False), pre=metaspace("first"), unk_token="<unk>", tokens=ADDED)
    yield c("normalizer Prepend Replace", False, seq("n", dict(type="Prepend", prepend="▁"), replace(" ", "▁")), byte_fallback=True, unk_token="<unk>", fuse_unk=True, tokens=ADDED,
            decoder=seq("d", replace("▁", " "), dict(type="ByteFallback"), dict(type="Fuse"), strip(" ", 1, 0)))
    yield c("normalizer Replace regex", False, replace("[0-9]+|\\s+", "#", "Regex"), unk_token="<unk>", tokens=ADDED)
    yield c("normalizer ByteLevel", True, dict(type="ByteLevel"), decoder=LEVEL, tokens=ADDED)
    for fuse in (False, True):
        yield c("unknown, fuse %s" % fuse, False, unk_token="<unk>", fuse_unk=fuse)
    yield c("no unknown", False)
    yield c("byte fallback", False, byte_fallback=True, unk_token="<unk>", decoder=dict(type="ByteFallback"))
    yield c("ignore merges", False, ignore_merges=True, unk_token="<unk>", extra=["Hello", "world", "aaaaa"], pre=dict(type="Whitespace"))
    yield c("ignore merges, bytes", True, ignore_merges=True, extra=["Hello", "Ġworld", "ÃłÃŃ"], pre=LEVEL, decoder=LEVEL)
    yield c("affixes", False, pre=dict(type="Whitespace"), unk_token="<unk>", end_of_word_suffix="</w>", continuing_subword_prefix="##", merges=[], extra=["##e", "##l", "##o</w>", "##d</w>", "a</w>", "##b"])
    for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        yield c("Split " + b, False, pre=split("[aeiou ]", b), unk_token="<unk>", tokens=ADDED)
        yield c("Split invert " + b, False, pre=split("[a-z]+", b, True), unk_token="<unk>")
        yield c("Split string " + b, False, pre=split(" ", b, kind="String"), unk_token="<unk>")
        yield c("Punctuation " + b, False, pre=dict(type="Punctuation", behavior=b), unk_token="<unk>")
    for individual in (False, True):
        yield c("Digits %s" % individual, False, pre=dict(type="Digits", individual_digits=individual), unk_token="<unk>")
        yield c("Digits %s, bytes" % individual, True, pre=seq("p", dict(type="Digits", individual_digits=individual), LEVEL), decoder=LEVEL)
    for scheme in ("always", "first", "never"):
        for s in (True, False):
            yield c("Metaspace %s %s" % (scheme, s), False, pre=metaspace(scheme, s), decoder=metaspace(scheme, s), unk_token="<unk>", tokens=ADDED)
        yield c("Whitespace Metaspace " + scheme, False, pre=seq("p", dict(type="WhitespaceSplit"), metaspace(scheme)), unk_token="<unk>", tokens=ADDED)
    for kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer"):
        yield c(kind, False, pre=dict(type=kind), unk_token="<unk>")
    yield c("CharDelimiterSplit", False, pre=dict(type="CharDelimiterSplit", delimiter="l"), unk_token="<unk>")
    yield c("FixedLength", False, pre=dict(type="FixedLength", length=3), unk_token="<unk>")
    for prefix in (False, True):
        for words in (False, True):
            level = dict(LEVEL, add_prefix_space=prefix, use_regex=words)
            yield c("ByteLevel %s %s" % (prefix, words), True, pre=level, decoder=LEVEL, tokens=ADDED)
            yield c("Whitespace ByteLevel %s %s" % (prefix, words), True, pre=seq("p", dict(type="WhitespaceSplit"), level), decoder=LEVEL)
    yield c("ByteLevel first", True, pre=seq("p", LEVEL, dict(type="Digits", individual_digits=True)), decoder=LEVEL)
    yield c("unknown regex", True, pre=seq("p", split("\\w+'?\\w*|(?=é)\\S|\\s+(?!\\S)", "Isolated"), dict(LEVEL, use_regex=False)), decoder=LEVEL)
    yield c("removed total", True, pre=seq("p", split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", "Removed", True), dict(LEVEL, use_regex=False)), decoder=LEVEL)
    yield c("template", True, pre=LEVEL, post=seq("t", dict(type="ByteLevel", add_prefix_space=True, trim_offsets=False, use_regex=True), template(["<s>", "A", "</s>"])), tokens=ADDED)
    yield c("roberta", True, pre=LEVEL, post=dict(type="RobertaProcessing", sep=["</s>", 2], cls=["<s>", 7], trim_offsets=True, add_prefix_space=False))
    yield c("bert", True, pre=LEVEL, post=dict(type="BertProcessing", sep=["</s>", 2], cls=["<s>", 7]))
    yield c("added in vocabulary", False, unk_token="<unk>", tokens=added(("hell", "s"), ("Ä", "n"), ("hello", ""), ("héé", "")))
    yield c("added normalized", False, dict(type="Lowercase"), unk_token="<unk>", tokens=added(("<N>", "n"), ("HELLO", "n"), ("World", "nw"), ("<S>", "")))
    for name, d in (("Fuse Strip", seq("d", dict(type="Fuse"), strip("h", 2, 0))), ("Fuse Strip end", seq("d", dict(type="Fuse"), strip("o", 1, 3))), ("Strip tokens", strip("h", 1, 1)),
                    ("Replace", replace("l", "LL")), ("ByteFallback Metaspace", seq("d", dict(type="ByteFallback"), metaspace("always"))), ("Metaspace ByteFallback Replace", seq("d", metaspace("first"), dict(type="ByteFallback"), replace("e", "")))):
        yield c("decoder " + name, False, byte_fallback=True, unk_token="<unk>", decoder=d, tokens=ADDED)


rows = []
for name, config in configs():
    t = Tokenizer.from_str(json.dumps(config))
    r, out = random.Random(name), []
    ids = []
    for s in TEXTS:
        row = dict(t=s, i=t.encode(s, add_special_tokens=False).ids)
        special = t.encode(s).ids
        if special != row["i"]:
            row["s"] = special
        t.encode_special_tokens = True
        plain = t.encode(s, add_special_tokens=False).ids
        t.encode_special_tokens = False
        if plain != row["i"]:
            row["p"] = plain
        out.append(row)
        ids += row["i"]
    for k in range(20):
        i = r.randrange(max(1, len(ids)))
        q = ids[i:i + r.randrange(1, 12)] if k % 2 else [r.randrange(t.get_vocab_size() + 2) for _ in range(r.randrange(1, 12))]
        try:
            out.append(dict(q=q, d=t.decode(q, skip_special_tokens=False), k=t.decode(q, skip_special_tokens=True), y=""))
        except BaseException:  # Strip panics on a text that is stripped from both ends
            pass
    rows.append(dict(name=name, tokenizer=config, rows=out))
with open(sys.argv[1], "wb") as f, gzip.GzipFile(filename="", fileobj=f, mode="wb", mtime=0) as z:
    for row in [dict(library="tokenizers " + tokenizers.__version__, tokenizers=len(rows))] + rows:
        z.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
print(len(rows), "tokenizers")
