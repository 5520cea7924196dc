"""The loop that compares a stored tensor with what a claim gives, as numba compiles it for `machine_code`.

`engine.residuals` has the formulas.
"""
# numba rewrites what follows; a type checker cannot follow it there
# pyright: basic, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from warmkit.merging.compiled import compiled


@compiled()
def compare(stored, claim, expected, base, start, rows, factors, limits, change, step, sums, products):
    """Add up the sums of a tally, a piece at a time: [17] `sums` in its order, and [V] `products` of rows and changes.

    `change` and `step` hold a piece; `limits` are u, the smallest subnormal, what float64 loses, and how many rows are mixed.
    """
    unit, subnormal, exact, mixed = limits[0], limits[1], limits[2], limits[3]
    for first in range(0, claim.size, change.size):
        count = min(change.size, claim.size - first)
        largest = 0.0
        for i in range(count):
            size = abs(claim[first + i])
            if mixed > 0:
                size = 0.0
                for v in range(factors.size):
                    size += abs(factors[v] * rows[v, first + i])
            moved = claim[first + i] - start[first + i]
            if abs(moved) <= exact * size:
                moved = 0.0
            change[i] = moved
            step[i] = unit * size + subnormal
            largest = max(largest, abs(moved))
        roundings = mixed + 2 if mixed > 0 else 0.0
        for i in range(count):
            x, claimed, right, old = stored[first + i], claim[first + i], expected[first + i], base[first + i]
            moved, near = change[i], step[i]
            bound = (1 + roundings) * near + 8 * unit * largest
            far = abs(moved)
            sums[0] += x != right
            sums[1] += (x - claimed) * (x - claimed)
            sums[2] += moved * moved
            sums[3] += (x - old) * (x - old)
            sums[4] += (x - old) * moved
            sums[5] += 32 * unit * near * far + 64 * unit * unit * moved * moved
            if mixed > 0:
                sums[5] += (roundings + 2) / 3 * near * near
            if far < 2 * mixed * near:
                sums[6] += 2 * near * far
            rest = x - right
            lean = rest * moved
            sums[7] += abs(x - claimed) > bound
            sums[8] += lean
            sums[9] += lean * lean
            sums[10] += rest * rest
            sums[11] += rest * rest * rest * rest
            rest = old - right
            lean = rest * moved
            sums[12] += abs(old - claimed) > bound
            sums[13] += lean
            sums[14] += lean * lean
            sums[15] += rest * rest
            sums[16] += rest * rest * rest * rest
        for v in range(rows.shape[0]):
            product = 0.0
            for i in range(count):
                product += rows[v, first + i] * change[i]
            products[v] += product
