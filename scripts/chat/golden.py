"""Renders every template with every conversation by transformers' own
apply_chat_template and writes what chat's tests compare with.

Usage: golden.py TEMPLATES OUT
TEMPLATES is a folder of *.jinja files. OUT gets golden.json.bz2 and
snippets.json.bz2. Use golden.sh, which installs what this needs.
"""

import bz2
import datetime
import glob
import json
import os
import re
import sys

import jinja2
import tokenizers
import transformers
from transformers.utils import chat_template_utils

from conversations import CASES
from snippets import CONTEXT, SNIPPETS

NOW = datetime.datetime(2025, 3, 9, 7, 5, 2, 45)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Clock
TOKENIZER = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()),
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<unk>",
    pad_token="<pad>",
)


def attempt(render):
    try:
        text = render()
        text.encode()
        return re.sub(r" at 0x[0-9a-f]+", " at 0x0", text)
    except Exception as e:  # whatever fails there must fail here
        raised = type(e) is jinja2.exceptions.TemplateError
        return {"error": type(e).__name__, "message": str(e), "raised": raised}


def render(source, case):
    return TOKENIZER.apply_chat_template(
        case["messages"],
        tools=case.get("tools"),
        documents=case.get("documents"),
        chat_template=source,
        add_generation_prompt=case.get("add_generation_prompt", False),
        continue_final_message=case.get("continue_final_message", False),
        tokenize=False,
        **case.get("kwargs", {}),
    )


def write(path, value):
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    with open(path, "wb") as f:
        f.write(bz2.compress(data, 9))
    print(path, len(data), "bytes,", os.path.getsize(path), "compressed")


def main(templates, out):
    made_by = {
        "transformers": transformers.__version__,
        "jinja2": jinja2.__version__,
        "python": sys.version.split()[0],
    }
    results = {}
    for path in sorted(glob.glob(os.path.join(templates, "*.jinja"))):
        with open(path, encoding="utf-8", newline="") as f:
            source = f.read()
        # All outcomes of one case lie side by side: they compress best so.
        for name, case in CASES.items():
            results.setdefault(name, {})[os.path.basename(path)] = attempt(lambda: render(source, case))
    write(
        os.path.join(out, "golden.json.bz2"),
        {
            "made_by": made_by,
            "now": NOW.isoformat(),
            "vars": TOKENIZER.special_tokens_map,
            "cases": CASES,
            "results": results,
        },
    )
    snippets = []
    for source in SNIPPETS:
        t = lambda: chat_template_utils._compile_jinja_template(source).render(**CONTEXT)
        snippets.append([source, attempt(t)])
    write(os.path.join(out, "snippets.json.bz2"), {"made_by": made_by, "context": CONTEXT, "snippets": snippets})
    failed = sum(isinstance(r, dict) for c in results.values() for r in c.values())
    print(len(CASES), "cases,", sum(map(len, results.values())), "renders,", failed, "of them errors;", len(snippets), "snippets;", made_by)


main(*sys.argv[1:])
