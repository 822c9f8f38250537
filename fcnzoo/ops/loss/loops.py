"""Cross-entropy and its gradient at low resolution: the loops that numba compiles.

Imported only when the compiled route is first used, because importing numba takes about half a second.

A band of rows of cells is worked on in tiles: the pixels of one row of cells (they lie between the same two rows of
scores), `CHUNK` columns wide. The two rows of scores are sampled along x once; each pixel's logits are then a mix of
the two lines, `ROWS` rows at a time: exponentials and their sum, the pixel's loss, and the gradient mixed back into
two lines. A line is finished, and given back to the scores along x, when the band has left it. Nothing larger than a
tile exists, and it stays in the nearest caches.

As in strip_loss.py, each score's largest class is first shifted to 0, so no logit is above 0 and no exponential
overflows. Where all of them underflow, the pixel is done again with its own largest logit.

Letters: K classes; a line is (K + 1, CHUNK), its last row is not a class but counts pixels (for label smoothing).
"""

# numba's types are not Python's: arrays are indexed by arrays of any kind, and functions are retyped per call.
# pyright: basic, reportCallIssue=false

from __future__ import annotations

import math

import numba
import numpy as np

from fcnzoo.ops.loss.vectors import LANES, ROWS, exponentials, spread

CHUNK = 64
"""Columns of a tile. Its exponentials are ROWS · K · CHUNK numbers: 21 KiB for 21 classes, 150 KiB for 150."""

TINY = 1e-20
"""Smallest sum of exponentials that is trusted: those that were too small to be told apart are less than K · 1e-18
of it (`compiled_exp.LOWEST`)."""

FAR = 1e250
"""Sums of neighboring pixels are multiplied until the product, or its inverse, is beyond this: then one logarithm is
taken for all of them. A sum is between TINY and K, so the product is never lost."""

compiled = numba.njit(nogil=True, fastmath={"contract"})
"""Multiplications and additions may be fused, which only makes them more exact; nothing else is relaxed."""


@compiled
def _widest(cuts, chunks):
    """The most scores that a chunk lies on."""
    most = 0
    for c in range(chunks.size - 1):
        most = max(most, cuts[1, chunks[c + 1] - 1] + 1 - cuts[0, chunks[c]])
    return most


@compiled
def _sample(scores, row, cuts, weights, first, last, left, nodes, line):
    """Sample a row of scores (K, h, w) along the runs `first`…`last`, shifted to a largest class of 0.

    Returns whether all scores are finite.
    """
    begin = cuts[0, first]
    count = cuts[1, last - 1] + 1 - begin
    highest = np.full(count, -np.inf, nodes.dtype)
    strange = False
    for k in range(nodes.shape[0]):
        for j in range(count):
            value = scores[k, row, begin + j]
            nodes[k, j] = value
            highest[j] = max(highest[j], value)
            # x − x is 0 unless x is NaN or infinite.
            strange |= value - value != 0
    for k in range(nodes.shape[0]):
        for run in range(first, last):
            low, high = cuts[0, run] - begin, cuts[1, run] - begin
            a = nodes[k, low] - highest[low]
            b = nodes[k, high] - highest[high]
            for x in range(cuts[2, run], cuts[2, run + 1]):
                line[k, x - left] = a * weights[0, x] + b * weights[1, x]
    return not strange


@compiled
def _give_back(line, out, row, cuts, weights, first, last, left, begin, end):
    """Add lines `begin`…`end` of a gradient to row `row` of `out` (…, h, w), and clear them: `_sample` transposed."""
    for k in range(begin, end):
        for run in range(first, last):
            a = line[k, 0] * 0
            b = a
            for x in range(cuts[2, run], cuts[2, run + 1]):
                a += line[k, x - left] * weights[0, x]
                b += line[k, x - left] * weights[1, x]
            out[k - begin, row, cuts[0, run]] += a
            out[k - begin, row, cuts[1, run]] += b
    line[begin:end] = 0


@compiled
def _redo(top, bottom, x, up, down, powers, start, step):
    """Exponentials of one pixel with its largest logit subtracted; return their sum and that logit."""
    highest = top[0, x] * up + bottom[0, x] * down
    for k in range(1, top.shape[0] - 1):
        highest = max(highest, top[k, x] * up + bottom[k, x] * down)
    total = highest * 0
    for k in range(top.shape[0] - 1):
        power = math.exp(top[k, x] * up + bottom[k, x] * down - highest)
        powers[start + k * step] = power
        total += power
    return total, highest


@compiled
def _sum_row(labels, ignored, terms, lines, up, down, row, step, powers, sums, factors, one_share, wanted, result):
    """One row of pixels of a tile: their loss, and what their exponentials are multiplied by.

    Writes `factors`, adds the target's part of the gradient, and adds to `result`: loss, sum of class weights; sets
    there the last label out of range, and that there was one.
    """
    top, bottom, above, below = lines
    weight, hit, share = terms
    classes = weight.size
    loss = 0.0
    total = 0.0
    product = 1.0
    for x in range(labels.size):
        at = (x // LANES * ROWS + row) * LANES + x % LANES
        label = labels[x]
        factors[at] = 0
        if label == ignored:
            continue
        if label < 0 or label >= classes:
            result[2] = 1
            result[3] = label
            continue
        value = sums[at]
        if not value > TINY:
            value, shift = _redo(top, bottom, x, up, down, powers, at, step)
            loss += share[label] * shift
        if one_share:
            product *= value
            if product < 1 / FAR or product > FAR:
                loss += share[0] * math.log(product)
                product = 1.0
        else:
            loss += share[label] * math.log(np.float64(value))
        loss -= hit[label] * (top[label, x] * up + bottom[label, x] * down)
        total += weight[label]
        if wanted:
            factors[at] = share[label] / value
            above[label, x] -= hit[label] * up
            below[label, x] -= hit[label] * down
            above[classes, x] += up
            below[classes, x] += down
    if one_share:
        loss += share[0] * math.log(product)
    result[0] += loss
    result[1] += total


@compiled
def _tile(labels, y0, weights, ignored, terms, lines, powers, sums, factors, one_share, wanted, result):
    """All pixels of one row of cells in one chunk: `labels` (R, columns)."""
    top, bottom, above, below = lines
    classes = terms[0].size
    chunk = top.shape[1]
    vectors = (labels.shape[1] + LANES - 1) // LANES
    for y in range(0, labels.shape[0], ROWS):
        # Rows beyond the tile are computed, and then multiplied by 0: their shares are those of any other row.
        at = y0 + y
        up = (weights[0, at], weights[0, at + 1], weights[0, at + 2], weights[0, at + 3])
        down = (weights[1, at], weights[1, at + 1], weights[1, at + 2], weights[1, at + 3])
        sums[:] = 0
        for k in range(classes):
            for v in range(vectors):
                exponentials(
                    top, bottom, k * chunk + v * LANES, up, down,
                    powers, (k * chunk + v * LANES) * ROWS, sums, v * LANES * ROWS,
                )  # fmt: skip
        factors[:] = 0
        for row in range(min(ROWS, labels.shape[0] - y)):
            _sum_row(
                labels[y + row], ignored, terms, lines, up[row], down[row],
                row, chunk * ROWS, powers, sums, factors, one_share, wanted, result,
            )  # fmt: skip
        if wanted:
            for k in range(classes):
                for v in range(vectors):
                    spread(
                        powers, (k * chunk + v * LANES) * ROWS, factors, v * LANES * ROWS, up, down,
                        above, below, k * chunk + v * LANES,
                    )  # fmt: skip


@compiled
def sum_band(
    scores, labels, ignored, terms, nodes, starts, wy, begin, end, cuts, chunks, wx, gradient, cover, border, result
):
    """Sum the loss of rows of cells `begin`…`end` of one image, and its gradient.

    Args:
        scores: (K, h, w), of any strides.
        labels: (rows, W) int64: the band's rows of the target.
        ignored: Label that takes no part.
        terms: (3, K): class weights, hit, share; see `strip_loss.Terms`.
        nodes: (n + 1) int32; row i of cells lies between rows `nodes[i]` and `nodes[i + 1]` of the scores.
        starts: (n + 1) int32; first row of pixels of each row of cells, and the end.
        wy: (2, H + 8) shares of the upper and the lower score at each row of pixels.
        begin: First row of cells.
        end: Where they end.
        cuts: (3, m + 1) int32, the m runs of columns that lie between the same scores and in the same chunk:
            the left score, the right one, the first column; the last column of `cuts` is the end.
        chunks: (c + 1) int32; the first run of each chunk, and the end.
        wx: (2, W + 8).
        gradient: (K, h, w), added to; empty where none is wanted.
        cover: (1, h, w), added to: the share of the counted pixels that each score has.
        border: (K + 1, 1, w), added to instead for the first row of scores, which the band above also touches.
        result: (5) float64, added to: loss; sum of the weights; 1 where a label is out of range; that label;
            1 where a score is not finite (nothing else counts then).
    """
    classes = scores.shape[0]
    wanted = gradient.size > 0
    share = terms[2]
    one_share = bool((share == share[0]).all())
    parts = (terms[0], terms[1], share)
    lines = np.zeros((4, classes + 1, CHUNK), scores.dtype)
    corners = np.empty((classes, _widest(cuts, chunks)), scores.dtype)
    powers = np.empty(classes * CHUNK * ROWS, scores.dtype)
    sums = np.empty(CHUNK * ROWS, scores.dtype)
    factors = np.empty(CHUNK * ROWS, scores.dtype)
    offset = starts[begin]
    for c in range(chunks.size - 1):
        first, last = chunks[c], chunks[c + 1]
        left, right = cuts[2, first], cuts[2, last]
        top, bottom, above, below = lines[0], lines[1], lines[2], lines[3]
        fine = _sample(scores, nodes[begin], cuts, wx, first, last, left, corners, top)
        for i in range(begin, end):
            fine &= _sample(scores, nodes[i + 1], cuts, wx, first, last, left, corners, bottom)
            if not fine:
                result[4] = 1
                return
            four = (top, bottom, above, below)
            block = labels[starts[i] - offset : starts[i + 1] - offset, left:right]
            _tile(block, starts[i], wy, ignored, parts, four, powers, sums, factors, one_share, wanted, result)
            for step in range(2 if i == end - 1 else 1):
                line, row = (below, nodes[end]) if step else (above, nodes[i])
                if not wanted:
                    continue
                if row == nodes[begin]:
                    _give_back(line, border, 0, cuts, wx, first, last, left, 0, classes + 1)
                else:
                    _give_back(line, gradient, row, cuts, wx, first, last, left, 0, classes)
                    _give_back(line, cover, row, cuts, wx, first, last, left, classes, classes + 1)
            top, bottom, above, below = bottom, top, below, above


def keyed_band(key):
    """Return `sum_band` for numba to keep on disk; see `keyed_rows` in `ops/labels/loops.py`."""

    def band(
        scores, labels, ignored, terms, nodes, starts, wy, begin, end, cuts, chunks, wx, gradient, cover, border, result
    ):
        key  # noqa: B018  # pyright: ignore[reportUnusedExpression] - enclosed
        sum_band(
            scores, labels, ignored, terms, nodes, starts, wy, begin, end, cuts, chunks, wx, gradient, cover, border,
            result,
        )  # fmt: skip

    return band
