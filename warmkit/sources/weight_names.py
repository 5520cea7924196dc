"""Names of the files that hold a model's weights."""

from __future__ import annotations

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
TORCH_INDEX, TORCH_SINGLE = "pytorch_model.bin.index.json", "pytorch_model.bin"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pth.tar")
"""Endings of what torch saves; the last is timm's, of a plain file of torch."""
