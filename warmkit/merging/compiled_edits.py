"""The loops of the methods that edit task vectors, as numba compiles them for `machine_code`.

Task vectors come as float64, so that one machine code serves every storage type and sums of a few 16-bit weights are
exact: whether two of them cancel does not depend on rounding. Magnitudes are compared as the bits of their float32.
"""
# numba rewrites what follows; a type checker cannot follow it there
# pyright: basic, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from warmkit.merging.compiled import compiled, magnitude, narrow, widen

SINGLE = np.float32(0)
GOLDEN, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
ONE, S11, S27, S30, S31 = np.uint64(1), np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)
S32, LOWER = np.uint64(32), np.uint64(0xFFFFFFFF)
UNIT = 2.0**-53


# Loops over one-dimensional rows become vector instructions; over rows of a matrix they do not.


@compiled()
def _difference(x, init, out):
    for i in range(out.size):
        out[i] = widen(x[i], 0.0) - widen(init[i], 0.0)


@compiled()
def task_vectors(x, first, out):
    """Write x_m - x_0 for the rows m >= 1 of x, from element `first` on; slices of all rows have strides, and no vectors."""
    stop = first + out.shape[1]
    for m in range(out.shape[0]):
        _difference(x[m + 1, first:stop], x[0, first:stop], out[m])


@compiled()
def add(init, factor, vector, out):
    """Write init + factor vector, the init's own bits where the vector is zero; return the largest magnitude's bits."""
    top = magnitude(narrow(0.0, out[0]))
    for i in range(out.size):
        start = widen(init[i], factor)
        step = widen(vector[i], factor)
        value = narrow(start if step == 0 else start + factor * step, out[i])
        out[i] = value
        bits = magnitude(value)
        top = bits if bits > top else top
    return top


# ---- order statistics ------------------------------------------------------------------------------------------------


@compiled()
def count_upper(x, counts):
    """Count the upper halves of the magnitudes; return how many are zero."""
    zeros = 0
    for i in range(x.size):
        key = magnitude(narrow(x[i], SINGLE))
        counts[key >> 16] += 1
        zeros += key == 0
    return zeros


@compiled()
def count_lower(x, upper, counts):
    """Count the lower halves of the magnitudes whose upper half is `upper`."""
    for i in range(x.size):
        key = magnitude(narrow(x[i], SINGLE))
        if key >> 16 == upper:
            counts[key & 0xFFFF] += 1


@compiled()
def count_equal(x, wanted):
    found = 0
    for i in range(x.size):
        found += magnitude(narrow(x[i], SINGLE)) == wanted
    return found


@compiled()
def place_of_equal(x, wanted, number, found):
    """Return where the magnitudes that equal `wanted` stop being the first `number` ones, and add to `found` how many were."""
    for i in range(x.size):
        if magnitude(narrow(x[i], SINGLE)) == wanted:
            if number == 0:
                return i
            number -= 1
            found[0] += 1
    return x.size


@compiled()
def keep_between(x, low, low_cut, high, high_cut, keep):
    """Mark what is among the largest down to (low, low_cut) and not among those down to (high, high_cut)."""
    for i in range(x.size):
        key = magnitude(narrow(x[i], SINGLE))
        large = (key > low) | ((key == low) & (i < low_cut))
        outlier = (key > high) | ((key == high) & (i < high_cut))
        keep[i] = large & (not outlier)


@compiled()
def erase(x, keep):
    for i in range(x.size):
        x[i] = x[i] if keep[i] else 0.0


# ---- ranks inside rows -----------------------------------------------------------------------------------------------


@compiled()
def ordered_keys(x, init, width, keys):
    """Write the bits of the magnitude of x - init above the place in the row, so that numbers order as ranks do."""
    for row in range(keys.size // width):
        for i in range(width):
            at = row * width + i
            bits = magnitude(narrow(widen(x[at], 0.0) - widen(init[at], 0.0), SINGLE))
            keys[at] = (np.uint64(bits) << S32) | np.uint64(i)


@compiled()
def scatter_ranks(keys, width, ranks):
    """Write the rank of every element, from rows of sorted keys."""
    for row in range(keys.size // width):
        for rank in range(width):
            ranks[row * width + np.int64(keys[row * width + rank] & LOWER)] = rank


# ---- random masks ----------------------------------------------------------------------------------------------------


@compiled(inline="always")
def _random(key, place):
    """Return 53 random bits, a function of a stream's key and a place in it (Steele et al., 2014, SplitMix64)."""
    z = key + (np.uint64(place) + ONE) * GOLDEN
    z = (z ^ (z >> S30)) * FIRST
    z = (z ^ (z >> S27)) * SECOND
    return (z ^ (z >> S31)) >> S11


@compiled()
def drop(x, key, first, chance):
    """Keep each element with the same chance and divide it by that; the others become zero."""
    for i in range(x.size):
        kept = np.float64(_random(key, first + i)) * UNIT < chance
        x[i] = x[i] / chance if kept else 0.0


@compiled()
def drop_ranked(x, key, first, ranks, low, step):
    """Keep each element with the chance low + step rank and divide it by that."""
    for i in range(x.size):
        chance = low + step * ranks[i]
        kept = np.float64(_random(key, first + i)) * UNIT < chance
        x[i] = x[i] / chance if kept else 0.0


# ---- sums ------------------------------------------------------------------------------------------------------------


@compiled()
def _add_scaled(total, weight, x):
    for i in range(total.size):
        total[i] += weight * x[i]


@compiled()
def _rounded(total, out):
    for i in range(total.size):
        out[i] = narrow(total[i], out[i])


@compiled()
def weighted_sum(x, weights, total, out):
    total[:] = 0.0
    for m in range(x.shape[0]):
        _add_scaled(total, weights[m], x[m])
    _rounded(total, out)


@compiled()
def _add_agreeing(x, vote, weight, total, merged, share):
    size = abs(weight)
    for i in range(total.size):
        agrees = vote * x[i] * np.sign(total[i]) > 0
        merged[i] += weight * x[i] if agrees else 0.0
        share[i] += size if agrees else 0.0


@compiled()
def _divide(merged, share):
    for i in range(merged.size):
        merged[i] = merged[i] / share[i] if share[i] > 0 else merged[i]


@compiled()
def elected_sum(x, votes, weights, normalize, total, merged, share, out):
    """Sum what has the sign of the votes' sum; divide by the weights of what was summed, where asked."""
    total[:] = 0.0
    for m in range(x.shape[0]):
        _add_scaled(total, votes[m], x[m])
    merged[:] = 0.0
    share[:] = 0.0
    for m in range(x.shape[0]):
        _add_agreeing(x[m], votes[m], weights[m], total, merged, share)
    if normalize:
        _divide(merged, share)
    _rounded(merged, out)


@compiled()
def _add_changed(x, epsilon, own, total, count, factor):
    for i in range(total.size):
        changed = abs(x[i]) > epsilon
        total[i] += x[i] if changed else 0.0
        count[i] += 1.0 if changed else 0.0
        factor[i] = own if changed else factor[i]


@compiled()
def _average(total, count, factor):
    for i in range(total.size):
        total[i] = total[i] * factor[i] if count[i] == 1.0 else total[i] / max(count[i], 1.0)


@compiled()
def average_changed(x, epsilon, own, total, count, factor, out):
    """Average what exceeds epsilon over those that do; where one model alone does, multiply it by that model's own factor."""
    total[:] = 0.0
    count[:] = 0.0
    factor[:] = 1.0
    for m in range(x.shape[0]):
        _add_changed(x[m], epsilon[m], own[m], total, count, factor)
    _average(total, count, factor)
    _rounded(total, out)
