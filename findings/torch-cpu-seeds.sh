#!/usr/bin/env bash
# torch's generator on a CPU takes 32 bits of a seed.
#
# torch 2.13.0. `torch.manual_seed(s)` accepts 64 bits, and `torch.initial_seed()` gives them back, but on a CPU the stream follows from
# the lowest 32: s and s + 2**32 draw the same numbers, and so do two hashes of 64 bits that agree in them. Whoever derives a seed for every
# (run, step) from a long hash has 2**32 streams, of which two meet among 77,000 with a chance of one in two. numpy 2.4.6 keeps the seeds apart.
# (warmkit draws what matters with numpy, keyed by 256 bits; torch draws dropout and the weights of new layers.)
#
# Seen on 2026-11-29: equal, equal, different.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy, torch

def drawn(seed):
    torch.manual_seed(seed)
    assert torch.initial_seed() == seed
    return torch.rand(4).tolist()

def apart(seed):
    return numpy.random.default_rng(seed).random(4).tolist()

print("torch", torch.__version__, "numpy", numpy.__version__)
print("torch, 0 and 2**32:", "equal" if drawn(0) == drawn(2**32) else "different")
print("torch, 7 and 7 + 2**40:", "equal" if drawn(7) == drawn(7 + 2**40) else "different")
print("numpy, 0 and 2**32:", "equal" if apart(0) == apart(2**32) else "different")
assert drawn(0) == drawn(2**32) != drawn(1) and drawn(7) == drawn(7 + 2**40) and apart(0) != apart(2**32)
PYTHON
