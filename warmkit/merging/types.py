"""The two arrays that every method maps between, and the options of those that can meet a degenerate angle."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Coefficients: TypeAlias = NDArray[np.float64]
"""[M] float64: one mixing number per model."""

Gram: TypeAlias = NDArray[np.float64]
"""[M, M] float64: G[m, n] = <d_m, d_n> over one group, d the task vectors (or the full weights)."""

Antiparallel: TypeAlias = Literal["error", "lerp"]
"""What to do where two vectors point in opposite directions and no shortest arc exists."""
