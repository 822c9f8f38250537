"""Labels from low-resolution scores: the loops that numba compiles.

Imported only when the compiled route is first used, because importing numba takes about half a second.

Let a *cell* be the pixels that lie between the same four scores. At each of them a class's score is a convex
combination of its four corners (and of 0, beyond a border of zeros), so a class that is below another one at all
four corners is nowhere the highest. In each cell one strong class, the pivot, is held against all others; in most
cells of real scores nothing is left but the pivot, and they are filled. Cells longer than `BLOCK` are cut, and the
test is repeated with the scores at the corners of each piece. The classes that are left, the rivals, are evaluated
pixel by pixel. Nothing is approximated; of equal scores the lower class wins.
"""

# numba's types are not Python's: arrays are indexed by arrays of any kind, and functions are retyped per call.
# pyright: basic, reportCallIssue=false

from __future__ import annotations

import numba
import numpy as np

from fcnzoo.ops.labels.race import BLOCK, race

COLUMNS = 128
"""Cells of a row that are worked on together: their 2·K·129 scores should stay in the second-level cache."""

compiled = numba.njit(nogil=True, fastmath={"contract"})
"""Multiplications and additions may be fused, which only makes them more exact; nothing else is relaxed."""


@compiled
def _load(scores, nodes, row, bad):
    """Copy a row of scores (K, w) at `nodes`, and mark those where a class is NaN or infinite."""
    bad[:] = False
    for k in range(row.shape[0]):
        for j in range(nodes.size):
            row[k, j] = scores[k, nodes[j]]
        for j in range(nodes.size):
            # x − x is 0 unless x is NaN or infinite.
            bad[j] |= row[k, j] - row[k, j] != 0


@compiled
def _find_pivots(top, bottom, best, pivot):
    """In each cell, the class with the largest sum over the four corners."""
    best[:] = -np.inf
    pivot[:] = 0
    for k in range(top.shape[0]):
        for j in range(pivot.size):
            total = (top[k, j] + bottom[k, j]) + (top[k, j + 1] + bottom[k, j + 1])
            higher = total > best[j]
            best[j] = total if higher else best[j]
            pivot[j] = k if higher else pivot[j]


@compiled
def _find_rivals(top, bottom, pivot, corners, keep, count, rivals):
    """In each cell, list the classes that the pivot does not beat at all corners: `rivals[j, :count[j]]`, ascending."""
    n = pivot.size
    for j in range(n):
        k = pivot[j]
        corners[0, j] = top[k, j]
        corners[1, j] = top[k, j + 1]
        corners[2, j] = bottom[k, j]
        corners[3, j] = bottom[k, j + 1]
    count[:] = 0
    eights = keep.view(np.uint64)
    for k in range(top.shape[0]):
        for j in range(n):
            a = top[k, j] - corners[0, j]
            b = top[k, j + 1] - corners[1, j]
            c = bottom[k, j] - corners[2, j]
            d = bottom[k, j + 1] - corners[3, j]
            a = a if a > b else b
            c = c if c > d else d
            a = a if a > c else c
            # A lower class wins where it equals the pivot, a higher one does not.
            keep[j] = np.uint8((a > 0) | ((a == 0) & (k <= pivot[j])))
        for e in range((n + 7) // 8):
            if eights[e]:
                for j in range(8 * e, min(8 * e + 8, n)):
                    rivals[j, count[j]] = k
                    count[j] += keep[j]


@compiled
def _follow_torch(top, bottom, j, y0, y1, x0, x1, wy, wx, out):
    """A cell with NaN or infinity, as PyTorch does it: 0 · inf is NaN, and the first NaN is the highest."""
    for y in range(y0, y1):
        for x in range(x0, x1):
            highest = -np.inf
            label = 0
            for k in range(top.shape[0]):
                first = top[k, j] * wy[0, y] + bottom[k, j] * wy[1, y]
                second = top[k, j + 1] * wy[0, y] + bottom[k, j + 1] * wy[1, y]
                value = first * wx[0, x] + second * wx[1, x]
                if value != value:
                    label = k
                    break
                if value > highest:
                    highest = value
                    label = k
            out[y, x] = label


@compiled
def _narrow(four, n, y0, y1, x0, x1, wy, wx, ends, left):
    """Of `n` classes keep those that may win in the piece between four pixels; return how many are left."""
    best = -np.inf
    pivot = 0
    for c in range(n):
        a = four[0, c] * wy[0, y0] + four[2, c] * wy[1, y0]
        b = four[1, c] * wy[0, y0] + four[3, c] * wy[1, y0]
        e = four[0, c] * wy[0, y1] + four[2, c] * wy[1, y1]
        f = four[1, c] * wy[0, y1] + four[3, c] * wy[1, y1]
        ends[0, c] = a * wx[0, x0] + b * wx[1, x0]
        ends[1, c] = a * wx[0, x1] + b * wx[1, x1]
        ends[2, c] = e * wx[0, x0] + f * wx[1, x0]
        ends[3, c] = e * wx[0, x1] + f * wx[1, x1]
        total = (ends[0, c] + ends[1, c]) + (ends[2, c] + ends[3, c])
        if total > best:
            best = total
            pivot = c
    p0, p1, p2, p3 = ends[0, pivot], ends[1, pivot], ends[2, pivot], ends[3, pivot]
    count = 0
    for c in range(n):
        left[count] = c
        a = max(max(ends[0, c] - p0, ends[1, c] - p1), max(ends[2, c] - p2, ends[3, c] - p3))
        count += (a > 0) | ((a == 0) & (c <= pivot))
    return count


@compiled
def _label_piece(four, names, n, y0, y1, x0, x1, wy, wx, lines, label, out):
    """Label a piece of at most 8×8 pixels: `n` classes race at each."""
    race(four, names, n, wy[0], wy[1], y0, wx[0], wx[1], x0, lines, label)
    for y in range(y1 - y0):
        for x in range(x1 - x0):
            out[y0 + y, x0 + x] = label[y, x]


@compiled
def _cut(four, names, n, y0, y1, x0, x1, wy, wx, ends, left, some, some_names, lines, label, out):
    """Label a cell: in pieces of at most 8×8 pixels, each with as few classes as may win there."""
    if y1 - y0 <= BLOCK and x1 - x0 <= BLOCK:
        _label_piece(four, names, n, y0, y1, x0, x1, wy, wx, lines, label, out)
        return
    for y in range(y0, y1, BLOCK):
        for x in range(x0, x1, BLOCK):
            ye = min(y + BLOCK, y1)
            xe = min(x + BLOCK, x1)
            m = _narrow(four, n, y, ye - 1, x, xe - 1, wy, wx, ends, left)
            if m == 1:
                out[y:ye, x:xe] = names[left[0]]
                continue
            for i in range(m):
                c = left[i]
                some_names[i] = names[c]
                for corner in range(4):
                    some[corner, i] = four[corner, c]
            _label_piece(some, some_names, m, y, ye, x, xe, wy, wx, lines, label, out)


@compiled
def _room(classes, like):
    """Room to work in for one cell: its scores, those of some classes, those at the ends of a piece, and names."""
    lines = np.empty((2, classes + 1, BLOCK), like.dtype)
    four = np.empty((4, classes + 1), like.dtype)
    some = np.empty((4, classes + 1), like.dtype)
    ends = np.empty((4, classes + 1), like.dtype)
    left = np.empty(classes + 2, np.int32)
    names = np.empty(classes + 1, np.int32)
    some_names = np.empty(classes + 1, np.int32)
    return four, some, ends, lines, left, names, some_names


@compiled
def _label_cells(top, bottom, bad, rivals, count, empty, xpart, xstart, first, y0, y1, wy, wx, room, label, out):
    """Label those cells of a row in which several classes are left; the others are filled already."""
    four, some, ends, lines, left, names, some_names = room
    for j in range(count.size):
        x0, x1 = xstart[first + j], xstart[first + j + 1]
        if bad[0, j] | bad[0, j + 1] | bad[1, j] | bad[1, j + 1]:
            _follow_torch(top, bottom, j, y0, y1, x0, x1, wy, wx, out)
            continue
        m = 0
        # Where all weights are 0 all scores are equal, and class 0 wins.
        if (empty | xpart[first + j]) and rivals[j, 0] != 0:
            names[0] = 0
            m = 1
        if m + count[j] == 1 or x0 == x1:
            continue
        for c in range(count[j]):
            names[m] = rivals[j, c]
            m += 1
        for c in range(m):
            k = names[c]
            four[0, c] = top[k, j]
            four[1, c] = top[k, j + 1]
            four[2, c] = bottom[k, j]
            four[3, c] = bottom[k, j + 1]
        _cut(four, names, m, y0, y1, x0, x1, wy, wx, ends, left, some, some_names, lines, label, out)


@compiled
def _fill(pivot, xstart, first, left_end, right_end, fill, y0, y1, out):
    """Fill the pixels of a row of cells with their pivots."""
    for j in range(pivot.size):
        for x in range(xstart[first + j] - left_end, xstart[first + j + 1] - left_end):
            fill[x] = pivot[j]
    for y in range(y0, y1):
        out[y, left_end:right_end] = fill


@compiled
def label_rows(scores, ynodes, ystart, wy, ypart, xnodes, xstart, wx, xpart, out, begin, end):
    """Label the rows of cells `begin`…`end` of a batch; row r is row r % n of image r // n.

    Args:
        scores: (B, K, h, w), of any strides.
        ynodes: (n + 1) rows of the scores; cells of row i lie between `ynodes[i]` and `ynodes[i + 1]`.
        ystart: (n + 1) first pixel of each row of cells, and the end.
        wy: (2, H + 8) weights of the two scores at each pixel.
        ypart: (n) whether the weights of some pixel sum up to less than 1.
        xnodes: (m + 1), as `ynodes` along the other axis; and so on.
        xstart: (m + 1).
        wx: (2, W + 8).
        xpart: (m).
        out: (B, H, W) of labels.
        begin: First row.
        end: Where the rows end.
    """
    classes = scores.shape[1]
    lines = ynodes.size - 1
    real = scores.dtype
    label = np.empty((BLOCK, BLOCK), out.dtype)
    room = _room(classes, scores[:0, 0, 0, 0])
    for start in range(0, xpart.size, COLUMNS):
        stop = min(start + COLUMNS, xpart.size)
        n = stop - start
        nodes = xnodes[start : stop + 1]
        left_end, right_end = xstart[start], xstart[stop]
        rows = np.empty((2, classes, n + 1), real)
        bad = np.empty((2, n + 1), np.bool_)
        pivot = np.empty(n, np.int32)
        best = np.empty(n, real)
        corners = np.empty((4, n), real)
        keep = np.zeros((n + 7) // 8 * 8, np.uint8)
        count = np.empty(n, np.int32)
        rivals = np.empty((n, classes + 1), np.int32)
        fill = np.empty(right_end - left_end, out.dtype)
        for r in range(begin, end):
            image, i = divmod(r, lines)
            y0, y1 = ystart[i], ystart[i + 1]
            if i == 0 or r == begin:
                _load(scores[image, :, ynodes[i]], nodes, rows[r & 1], bad[r & 1])
            top, bottom = rows[r & 1], rows[1 - (r & 1)]
            _load(scores[image, :, ynodes[i + 1]], nodes, bottom, bad[1 - (r & 1)])
            if y0 == y1:
                continue
            _find_pivots(top, bottom, best, pivot)
            _find_rivals(top, bottom, pivot, corners, keep, count, rivals)
            _fill(pivot, xstart, start, left_end, right_end, fill, y0, y1, out[image])
            _label_cells(
                top, bottom, bad, rivals, count, ypart[i], xpart, xstart, start, y0, y1, wy, wx, room, label, out[image]
            )


def keyed_rows(key):
    """Return `label_rows` for numba to keep on disk as long as `key`, and this file, are the same.

    Numba looks at the file of the function that is kept and at what it encloses, not at what it calls.
    """

    def rows(scores, ynodes, ystart, wy, ypart, xnodes, xstart, wx, xpart, out, begin, end):
        key  # noqa: B018  # pyright: ignore[reportUnusedExpression] - enclosed
        label_rows(scores, ynodes, ystart, wy, ypart, xnodes, xstart, wx, xpart, out, begin, end)

    return rows
