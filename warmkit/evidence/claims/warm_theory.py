"""Theory of WARM: features learned with probability p are weighed by p in ENS and by p^2 in WA.

The paper's model, simulated: orthogonal features z^j, inputs x^j ~ N(y z^j, sigma); run i selects feature j with probability
p_j, fits omega_i to what it selected, and r_i(x) = omega_i . f_i(x). No model of the testbed is needed.

Source: WARM (Ramé et al., 2024), section 4.3, equations 1 and 2, and appendix B.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from warmkit.common.random_streams import generator
from warmkit.evidence.claims.measurements import Measurements
from warmkit.training.recipe_sections import number_in

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """What is simulated.

    Attributes:
        probabilities: p_j of the features whose weights are drawn.
        counts: Numbers of runs, M; the last stands for infinity.
        noise: Sigma of the inputs.
        samples: Of the training set of a run.
        runs: Simulated for every M, in groups of M.
        shared: Features of the true label.
        learned: p of these.
        own: Features of a swapped label.
        memorised: p of these.
        texts: With swapped labels, and held-out ones.
    """

    probabilities: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    counts: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 6, 10, 30, 1000])
    noise: float = number_in(0, default=0.1)
    samples: int = number_in(1, default=1000)
    runs: int = number_in(1, default=200_000)
    shared: int = number_in(1, default=5)
    learned: float = number_in(0, 1, default=0.9)
    own: int = number_in(1, default=60)
    memorised: float = number_in(0, 1, default=0.2)
    texts: int = number_in(1, default=2000)


@dataclass(frozen=True)
class Runs:
    """What groups of M runs learned, z^j being the unit vector e_j.

    Attributes:
        selected: f_i^j, [groups, M, F].
        omega: omega_i along z^j, [groups, M, F].
    """

    selected: Array
    omega: Array

    def ens(self) -> Array:
        """Return the weight of z^j . x^j in ENS, [groups, F]: the mean of omega_i^j f_i^j."""
        return (self.omega * self.selected).mean(1)

    def wa(self, layers: int = 2) -> Array:
        """Return it in WA, [groups, F]: the mean of omega_i^j times that of f_i^j, which every further layer repeats."""
        return self.omega.mean(1) * self.selected.mean(1) ** (layers - 1)


def learn(groups: int, count: int, probabilities: Array, how: Settings, draw: np.random.Generator) -> Runs:
    """Let groups of M runs select features, and fit omega, the mean of y f(x) over the training set of a run."""
    selected = (draw.random((groups, count, len(probabilities))) < probabilities).astype(np.float64)
    fitted = 1 + draw.normal(0, how.noise / np.sqrt(how.samples), selected.shape)
    return Runs(selected, selected * fitted)


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Simulate weights by p and by M, and the fit to swapped labels."""
    found, draw = Measurements(), generator("theory", bed.seed)
    _weights(how, draw, found)
    _labels(how, draw, found)
    return found


def exponent(probabilities: Array, weights: Array) -> float:
    """Return k of weights = p^k, by least squares of the logarithms.

    Example:
        >>> round(exponent(np.array([0.25, 0.5]), np.array([0.0625, 0.25])), 6)
        2.0
    """
    x, y = np.log(probabilities), np.log(weights)
    return float((x * y).sum() / (x * x).sum())


def expected_wa(probability: float | Array, count: int) -> float | Array:
    """Return the expected weight in WA of M runs: p^2 + p (1 - p) / M, the mean of a squared binomial share."""
    return probability**2 + probability * (1 - probability) / count


def _weights(how: Settings, draw: np.random.Generator, found: Measurements) -> None:
    p, off = np.array(how.probabilities), list[float]()
    weights: dict[str, Array] = {}
    for m in how.counts:
        runs = learn(max(1, how.runs // m), m, p, how, draw)
        weights = {"ENS": runs.ens().mean(0), "WA": runs.wa().mean(0), "WA, three layers": runs.wa(3).mean(0)}
        off.append(float(np.abs(weights["WA"] - expected_wa(p, m)).max()))
        for line in ("ENS", "WA"):
            for place in (1, -3):
                point = {"at": m, "weight": float(weights[line][place])}
                found.draw("count", f"{line}, p = {p[place]:g}", [point])
    for line, each in weights.items():
        found.draw("probability", line, [{"at": a, "weight": b} for a, b in zip(p.tolist(), each.tolist())])
    found.state(
        ens_exponent_minus_1=exponent(p, weights["ENS"]) - 1,
        wa_exponent_minus_2=exponent(p, weights["WA"]) - 2,
        three_layers_exponent_minus_3=exponent(p, weights["WA, three layers"]) - 3,
        finite_m_error=max(off),
    )


def _labels(how: Settings, draw: np.random.Generator, found: Measurements) -> None:
    """Fit swapped labels: the features of the true label say +1, and those that every swapped text has of its own say -1."""
    p = np.repeat([how.learned, how.memorised], [how.shared, how.own])
    texts = {"swapped": np.repeat([-1.0, 1.0], [how.shared, how.own]), "held_out": np.repeat([1.0, 0.0], [how.shared, how.own])}
    points: dict[str, dict[str, float]] = {}
    for m in how.counts[:-1]:
        runs = learn(how.texts, m, p, how, draw)
        for line, weights in (("ENS", runs.ens()), ("WA", runs.wa())):
            right = {
                name: 100 * float(((weights * (x + draw.normal(0, how.noise, weights.shape))).sum(1) > 0).mean())
                for name, x in texts.items()
            }
            points[line] = {"at": m, **right}
            found.draw("labels", line, [points[line]])
    found.state(
        memorised_ens_minus_wa=points["ENS"]["swapped"] - points["WA"]["swapped"],
        held_out_wa_minus_ens=points["WA"]["held_out"] - points["ENS"]["held_out"],
    )
