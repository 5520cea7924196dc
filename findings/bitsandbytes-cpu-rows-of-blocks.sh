#!/usr/bin/env bash
# bitsandbytes on a CPU with AVX-512 gives 4-bit weights the scales of other blocks where a row has no whole number of blocks.
#
# bitsandbytes 0.50.2, Linux on x86-64. A matrix is quantised in blocks of `blocksize` numbers in flat order, each with a scale of its own (absmax),
# and a block may go on from one row to the next. `dequantize_4bit` on such a CPU takes columns // blocksize scales for a row: row r has its first
# number from block r * (columns // blocksize), and where a row is shorter than a block, all rows have the scale of the first block. Nothing is said.
# So it is for every number of columns that is a multiple of 16 and not of the size of a block, in NF4 and FP4 (4304 columns are those of a matrix of
# SigLIP so400m). A `Linear4bit` that is trained multiplies with those numbers. Other columns, and rows of whole blocks, are right.
#
# Seen on 2026-11-30, NF4 in blocks of 64, the relative error to the weights before they were quantised, and that of code book times absmax in torch:
# [64, 96] 0.278 and 0.092; [64, 32] 0.402 and 0.092; [64, 4304] 0.245 and 0.092; 64, 100 and 128 columns the same numbers, bit for bit.
set -euo pipefail
if ! grep -qw avx512f /proc/cpuinfo 2>/dev/null; then
    echo "not applicable: this CPU has no AVX-512"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 bitsandbytes==0.50.2
"$folder/venv/bin/python" - <<'PYTHON'
import logging
logging.disable(logging.WARNING)  # of an optional package, not of the numbers
import bitsandbytes, torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

print("bitsandbytes", bitsandbytes.__version__, "torch", torch.__version__)

def read(rows, columns, form, size=64):
    """Return a weight, what the library reads of it, what is stored (in torch), and that with the scales of the wrong blocks."""
    torch.manual_seed(0)
    weight = torch.randn(rows, columns)
    packed, state = quantize_4bit(weight, blocksize=size, quant_type=form)
    codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], 1).flatten().long()
    values = state.code[codes].view(rows, columns)
    own = torch.arange(rows * columns).view(rows, columns) // size
    other = torch.arange(rows)[:, None] * (columns // size) + torch.arange(columns) // size
    return weight, dequantize_4bit(packed, state), values * state.absmax[own], values * state.absmax[other]

def error(found, weight):
    return ((found - weight).norm() / weight.norm()).item()

for form in ("nf4", "fp4"):
    for rows, columns in ((64, 96), (64, 32), (64, 4304), (64, 64), (64, 128), (64, 100)):
        weight, found, stored, shifted = read(rows, columns, form)
        print(f"{form} [{rows}, {columns}]: {error(found, weight):.3f}, {error(stored, weight):.3f}")
        assert error(stored, weight) < 0.15
        if columns in (96, 32, 4304):
            assert torch.equal(found, shifted) and error(found, weight) > 2 * error(stored, weight)
        else:
            assert torch.equal(found, stored)

weight, found, stored, _ = read(64, 96, "nf4")
layer = bitsandbytes.nn.Linear4bit(96, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32, compress_statistics=False)
layer.load_state_dict({"weight": weight})
said = layer.to("cpu").train()(torch.eye(96)).T
print(f"Linear4bit, trained, [64, 96]: {error(said, weight):.3f}, {error(stored, weight):.3f}")
assert torch.allclose(said, found, atol=1e-5)
PYTHON
