#!/usr/bin/env python3
"""corpora.py OUTDIR: writes prose.txt, code.txt, multi.txt from what a Debian + Python machine has.

prose: licence texts, then docstrings of the standard library (sorted by path), cut at 1,000,000 bytes.
code:  standard library sources (sorted by path, no tests), cut at 2,000,000 bytes.
multi: translated messages (.mo catalogues), round-robin over the languages, cut at 1,000,000 bytes.
Prints sizes and SHA-256, so that two machines can tell whether they measured the same bytes.
"""
import ast, glob, gettext, hashlib, os, sys, sysconfig

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
LIB = sysconfig.get_paths()["stdlib"]
LANGS = "zh_CN zh_TW ja ko ru uk ar fa he hi bn ta th vi el tr de fr es pl cs hu fi pt_BR".split()


def cut(s, n):
    b = s.encode()[:n]
    return b.decode("utf-8", "ignore").encode()


def sources():
    fs = glob.glob(LIB + "/*.py") + glob.glob(LIB + "/*/*.py")
    return sorted(f for f in fs if "/test" not in f[len(LIB):] and "site-packages" not in f)


def read(f):
    try:
        return open(f, encoding="utf-8").read()
    except UnicodeDecodeError:
        return ""


prose = [read(f) for f in sorted(glob.glob("/usr/share/common-licenses/*")) if not os.path.islink(f)]
for f in sources():
    try:
        for n in ast.walk(ast.parse(read(f))):
            if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                d = ast.get_docstring(n)
                if d:
                    prose.append(d)
    except SyntaxError:
        pass
code = [read(f) for f in sources()]

cats = []
for l in LANGS:
    msgs, seen = [], set()
    for f in sorted(glob.glob(f"/usr/share/locale/{l}/LC_MESSAGES/*.mo") + glob.glob(f"/usr/share/vim/vim*/lang/{l}*/LC_MESSAGES/*.mo")):
        try:
            t = gettext.GNUTranslations(open(f, "rb"))
        except Exception:
            continue
        for k, v in t._catalog.items():
            if k and v and v not in seen and any(ord(c) > 127 for c in v):
                seen.add(v)
                msgs.append(v)
    if msgs:
        cats.append(msgs)
multi, i = [], 0
while sum(map(len, multi)) < 1_000_000 and any(i < len(c) for c in cats):
    for c in cats:
        multi += c[i:i + 8]
    i += 8

for name, parts, n in (("prose", prose, 1_000_000), ("code", code, 2_000_000), ("multi", multi, 1_000_000)):
    b = cut("\n".join(parts), n)
    open(f"{out}/{name}.txt", "wb").write(b)
    print(name, len(b), hashlib.sha256(b).hexdigest()[:16], "langs=%d" % len(cats) if name == "multi" else "")
