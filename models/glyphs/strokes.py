"""`strokes`: a grey picture of one sign -> the sign alone, `[48, 48]` u8, paper 0, ink up to 255.

This is the definition; `device/input/src/strokes.rs` is its twin on the board and equals it bit for bit
(`make_goldens.py` prints the cases both must give). Integers only; every division is of a non-negative
number by a positive one and rounds down; `rdiv(a, b) = (a + b / 2) / b`.

Input: grey `[H, W]` u8, 16 <= H, W <= 8192. Grey from RGB: `(77 R + 150 G + 29 B + 128) >> 8`.
`size` is the side of the result, 48 for the shipped backbone.

 1. Shrink. `L = max(H, W)`. If `L > 160`: `w = max(1, rdiv(160 W, L))`, `h` likewise, area average (below) to `[h, w]`.
 2. Smooth. Binomial 3x3, edges repeated: horizontally `a + 2 b + c`, then vertically, then `(sum + 8) >> 4`.
 3. Polarity. `R = max(h, w) / 4`; `m` = mean over the box of radius R clipped to the picture, `rdiv(sum, count)`.
    If the sum over all pixels of `(s - m)^3` is positive, ink is lighter than paper: `s = 255 - s`.
 4. Paper. `r = max(2, (max(h, w) + 4) / 8)`. `paper` = closing of `s`, extended by r on all sides by repeating its edge:
    maximum over the square of radius r at every pixel of the extended picture, clipped to it, then minimum over the square
    of radius r at every pixel of the picture itself. It follows gradients and shadows and fills what is dark and narrower
    than `2 r + 1`. (Without the extension a plain gradient would leave a dark strip at its dark edge.)
 5. Darkness. `d = rdiv(255 (paper - s), max(paper, 32))`, at most 255: what part of the light the ink keeps back.
 6. Noise. Over the n values of `d` in order: `median` = the `(n + 1) / 2`-th smallest, `quarter` = the `(n + 3) / 4`-th;
    `noise = median - quarter`; `d = max(0, d - median)`.
 7. Contrast. `peak` = the `max(4, n / 400)`-th largest `d`. Refused as empty if `peak < 16 + 6 noise`.
 8. Mask, by hysteresis: `high = (peak + 1) / 2`, `low = max(peak / 4, 3 noise + 1)`. Pixels with `d >= low`, in 8-connected
    groups; a group stays if one of its pixels has `d >= high`, and if 64 times its sum of `d` reaches the largest sum of
    those that stay so far (specks go).
 9. Ink. Within the mask grown by one pixel (8 neighbours): `v = min(255, rdiv(255 max(0, d - f), peak - f))` with
    `f = low / 2`; 0 elsewhere.
10. Box of the mask (not grown): `x0, y0, bw, bh`; `s = max(bw, bh, 8)`, `margin = rdiv(s, 12)`, `t = s + 2 margin`.
    The crop is the t x t square at `x0 - margin - (s - bw) / 2`, `y0 - margin - (s - bh) / 2`; outside the picture 0.
11. Area average of the crop to `[size, size]`, then `rdiv(255 v, max v)`. If `max v` is 0 the picture is empty.

Area average of `[H, W]` to `[h, w]`: pixel x spans `[x w, (x + 1) w)`, cell j spans `[j W, (j + 1) W)`; a pixel counts in a
cell with the length they share; likewise vertically. Result `rdiv(sum, W H)`; the sum is below 2^34. Cells may be smaller
than pixels.

What it does not do: choose among several signs (all that stands out is one sign), undo perspective, or see ink areas wider
than a quarter of the picture. A sign should span at least a quarter of the picture's longer side.
"""

import numpy as np
from scipy import ndimage

SIDE_MIN, SIDE_MAX = 16, 8192
WORK_SIDE_MAX = 160
SIZE = 48


class EmptyPicture(ValueError):
    """Nothing stands out from the paper."""


def grey_from_rgb(rgb):
    """`[H, W, 3]` u8 -> `[H, W]` u8."""
    r, g, b = (rgb[..., i].astype(np.int64) for i in range(3))
    return ((77 * r + 150 * g + 29 * b + 128) >> 8).astype(np.uint8)


def strokes(grey, size=SIZE):
    """`[H, W]` u8 -> `[size, size]` u8; raises `EmptyPicture`."""
    grey = np.asarray(grey)
    height, width = grey.shape
    if not (SIDE_MIN <= height <= SIDE_MAX and SIDE_MIN <= width <= SIDE_MAX):
        raise ValueError(f"picture is {width}x{height}, sides must be {SIDE_MIN}..{SIDE_MAX}")
    picture = shrink(grey.astype(np.int64))
    d, peak, noise = darkness(picture)
    mask, low = ink_mask(d, peak, noise)
    floor = low // 2
    ink = np.minimum(255, rdiv(255 * np.maximum(0, d - floor), peak - floor))
    ink *= ndimage.binary_dilation(mask, np.ones((3, 3), bool))
    out = area_average(crop_square(ink, mask), size, size)
    if out.max() == 0:
        raise EmptyPicture("empty picture: nothing stands out from the paper")
    return rdiv(255 * out, out.max()).astype(np.uint8)


def rdiv(a, b):
    return (a + b // 2) // b


def shrink(picture):
    height, width = picture.shape
    longest = max(height, width)
    if longest <= WORK_SIDE_MAX:
        return picture
    w = max(1, rdiv(WORK_SIDE_MAX * width, longest))
    h = max(1, rdiv(WORK_SIDE_MAX * height, longest))
    return area_average(picture, h, w)


def area_average(picture, h, w):
    height, width = picture.shape
    rows = overlap(height, h) @ picture  # [h, W]
    return rdiv(rows @ overlap(width, w).T, height * width)  # [h, w]


def overlap(n_pixels, n_cells):
    """Shared lengths, `[n_cells, n_pixels]`; each row sums to n_pixels."""
    pixel = np.arange(n_pixels, dtype=np.int64) * n_cells
    cell = np.arange(n_cells, dtype=np.int64)[:, None] * n_pixels
    return np.maximum(0, np.minimum(pixel + n_cells, cell + n_pixels) - np.maximum(pixel, cell))


def darkness(picture):
    """Steps 2 to 7: `d` `[h, w]` above the paper's median, its peak, the paper's noise."""
    s = smooth(picture)
    h, w = s.shape
    if ((s - box_mean(s, max(h, w) // 4)) ** 3).sum() > 0:
        s = 255 - s
    r = max(2, (max(h, w) + 4) // 8)
    # mode="nearest" is the same as clipping, for a maximum; the minimum's window never leaves the extended picture.
    brightest = ndimage.maximum_filter(np.pad(s, r, mode="edge"), 2 * r + 1, mode="nearest")
    paper = ndimage.minimum_filter(brightest, 2 * r + 1)[r:-r, r:-r]
    d = np.minimum(255, rdiv(255 * (paper - s), np.maximum(paper, 32)))
    n = d.size
    order = np.sort(d, axis=None)
    median = int(order[(n + 1) // 2 - 1])
    noise = median - int(order[(n + 3) // 4 - 1])
    d = np.maximum(0, d - median)
    peak = max(0, int(order[n - max(4, n // 400)]) - median)
    if peak < 16 + 6 * noise:
        raise EmptyPicture("empty picture: nothing stands out from the paper")
    return d, peak, noise


def smooth(picture):
    p = np.pad(picture, 1, mode="edge")
    p = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
    p = p[:-2] + 2 * p[1:-1] + p[2:]
    return (p + 8) >> 4


def box_mean(s, radius):
    h, w = s.shape
    table = np.zeros((h + 1, w + 1), np.int64)
    table[1:, 1:] = s.cumsum(0).cumsum(1)
    top, bottom = np.maximum(0, np.arange(h) - radius), np.minimum(h, np.arange(h) + radius + 1)
    left, right = np.maximum(0, np.arange(w) - radius), np.minimum(w, np.arange(w) + radius + 1)
    rows = table[bottom] - table[top]
    return rdiv(rows[:, right] - rows[:, left], (bottom - top)[:, None] * (right - left))


def ink_mask(d, peak, noise):
    high = (peak + 1) // 2
    low = max(peak // 4, 3 * noise + 1)
    groups, n_groups = ndimage.label(d >= low, np.ones((3, 3), int))
    index = np.arange(n_groups + 1)
    strongest = ndimage.maximum(d, groups, index).astype(np.int64)
    total = np.bincount(groups.ravel(), weights=d.ravel(), minlength=n_groups + 1).astype(np.int64)
    stays = strongest >= high
    stays[0] = False
    stays &= 64 * total >= total[stays].max(initial=0)
    return stays[groups], low


def crop_square(ink, mask):
    ys, xs = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    y0, x0 = int(ys[0]), int(xs[0])
    bh, bw = int(ys[-1]) - y0 + 1, int(xs[-1]) - x0 + 1
    s = max(bw, bh, 8)
    margin = rdiv(s, 12)
    t = s + 2 * margin
    top, left = y0 - margin - (s - bh) // 2, x0 - margin - (s - bw) // 2
    padded = np.pad(ink, t)
    return padded[top + t : top + 2 * t, left + t : left + 2 * t]
