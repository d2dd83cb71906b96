#!/usr/bin/env python3
"""perplexity.py MODEL_DIR TEXT OUT.json: the ids of a text and its perplexity under
transformers, for the test of package model.

    python3 -m pip install gguf safetensors numpy torch transformers
    python3 scripts/gguf_to_hf.py SmolLM2-135M-Instruct.Q4_1.gguf /tmp/twin
    python3 scripts/perplexity.py /tmp/twin engine/native/model/testdata/perplexity.txt engine/native/model/testdata/perplexity.json

The text is one sequence after the beginning-of-text token; every id but the first
is predicted from all before it, in float32.
"""
import json
import math
import sys

import torch
import transformers
from tokenizers import Tokenizer

folder, text, out = sys.argv[1:4]
ids = [1] + Tokenizer.from_file(folder + "/tokenizer.json").encode(open(text, encoding="utf-8").read(), add_special_tokens=False).ids
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
with torch.no_grad():
    logits = model(torch.tensor([ids])).logits[0].double()
logprob = torch.log_softmax(logits[:-1], -1).gather(1, torch.tensor(ids[1:])[:, None])
perplexity = math.exp(-float(logprob.mean()))
json.dump({"engine": f"transformers {transformers.__version__}, torch {torch.__version__}, float32", "perplexity": round(perplexity, 5), "ids": ids}, open(out, "w"))
print(len(ids), "ids, perplexity", perplexity)
