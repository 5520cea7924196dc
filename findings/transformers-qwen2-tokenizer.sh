#!/usr/bin/env bash
# A tokenizer of one's own, saved beside a Qwen2 model, comes back from AutoTokenizer without its words.
#
# transformers 5.23.0. `save_pretrained` of a word-level tokenizer writes its words into tokenizer.json, and `TokenizersBackend` as its class.
# Beside the config.json of a Llama model, `AutoTokenizer.from_pretrained` gives that tokenizer back. Beside that of a Qwen2 model it takes
# `Qwen2Tokenizer` instead, which makes of the file's words a byte-level BPE without a single merge, so that no word is ever put together:
# every text is no token at all, and nothing is said. `TokenizersBackend.from_pretrained` reads the same folder rightly. Qwen3 does no harm.
#
# Seen on 2026-11-29, the tokens of "the cat sat": beside llama [2, 3, 4]; beside qwen3 [2, 3, 4]; beside qwen2 [];
# beside qwen2, with TokenizersBackend [2, 3, 4].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast, TokenizersBackend

text = "the cat sat"
words = {word: place for place, word in enumerate(["[UNK]", "[EOS]", "the", "cat", "sat"])}
plain = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
plain.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]", eos_token="[EOS]")
assert tokenizer(text).input_ids == [2, 3, 4]

def beside(kind, reader=AutoTokenizer):
    place = f"{sys.argv[1]}/{kind}"
    tokenizer.save_pretrained(place)
    AutoConfig.for_model(kind).save_pretrained(place)
    again = reader.from_pretrained(place)
    print(f"beside {kind}, {reader.__name__}: {type(again).__name__} {again(text).input_ids}")
    return again(text).input_ids

print("transformers", transformers.__version__)
assert beside("llama") == beside("qwen3") == [2, 3, 4]
assert beside("qwen2") == []
assert beside("qwen2", TokenizersBackend) == [2, 3, 4]
PYTHON
