"""Prints the golden cases of `strokes`: inputs by integer formulas, outputs by FNV-1a 64 (no dependency in the twin's tests).

    python3 make_goldens.py            # one line per case: name width height outcome
    python3 make_goldens.py --show NAME

The same formulas stand in the tests of `device/input/src/strokes.rs`.
"""

import argparse

import numpy as np

from strokes import EmptyPicture, strokes


class Lcg:
    """x -> 1664525 x + 1013904223 mod 2^32; draws are the top byte. Numerical Recipes, 2nd ed., section 7.1."""

    def __init__(self, seed):
        self.state = seed

    def byte(self):
        self.state = (self.state * 1664525 + 1013904223) % 2**32
        return self.state >> 24


def picture(width, height, paper, ink, pen, lines, dx=0, dy=0, noise=0, seed=1, shadow_from=None):
    """Paper with a gradient of dx, dy (in 1/256 per pixel), thick lines of pen radius `pen`, then noise row by row.

    A pixel is ink if its distance to one of the segments is at most `pen`, in integers. `shadow_from = x`: from that
    column on three quarters of the light. `noise = k` adds `(byte * k) / 128 - k` (rounded down).
    """
    lcg = Lcg(seed)
    out = np.zeros((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            value = ink if any(near(x, y, line, pen) for line in lines) else paper
            value += (dx * x + dy * y) // 256
            if shadow_from is not None and x >= shadow_from:
                value = value * 3 // 4
            if noise:
                value += lcg.byte() * noise // 128 - noise
            out[y, x] = min(255, max(0, value))
    return out


def near(x, y, line, pen):
    x0, y0, x1, y1 = line
    ax, ay, bx, by = x - x0, y - y0, x1 - x0, y1 - y0
    length2 = bx * bx + by * by
    along = ax * bx + ay * by
    if along <= 0 or length2 == 0:
        return ax * ax + ay * ay <= pen * pen
    if along >= length2:
        return (x - x1) ** 2 + (y - y1) ** 2 <= pen * pen
    cross = ax * by - ay * bx
    return cross * cross <= pen * pen * length2


def k_shape(x, y, s):
    """A sign of three strokes and a dot, in a box of side s at x, y."""
    return [(x, y, x, y + s), (x + s, y, x, y + s // 2), (x, y + s // 2, x + s, y + s), (x + s, y + s // 2, x + s, y + s // 2)]


def cases():
    yield "plain", picture(105, 105, 255, 0, 1, k_shape(30, 25, 50))
    yield "light_on_dark", picture(105, 105, 20, 230, 1, k_shape(30, 25, 50))
    yield "noise", picture(120, 90, 200, 60, 2, k_shape(35, 20, 45), noise=20, seed=7)
    yield "gradient", picture(160, 120, 120, 20, 2, k_shape(50, 30, 60), dx=160, dy=60, noise=6, seed=3)
    yield "shadow", picture(160, 160, 220, 70, 3, k_shape(40, 40, 80), noise=8, seed=11, shadow_from=70)
    yield "large", picture(400, 300, 210, 50, 6, k_shape(100, 60, 170), dx=30, dy=-40, noise=24, seed=5)
    yield "tall", picture(40, 333, 230, 40, 2, k_shape(10, 150, 20), noise=4, seed=9)
    yield "touches_border", picture(64, 64, 250, 10, 2, k_shape(0, 0, 63), noise=3, seed=2)
    yield "smallest", picture(16, 16, 255, 0, 0, k_shape(4, 4, 8))
    yield "dot", picture(50, 70, 240, 30, 1, [(20, 30, 20, 30)])
    yield "specks", specks()
    yield "faint", picture(100, 100, 180, 150, 2, k_shape(30, 30, 40), noise=3, seed=13)
    yield "random_dots", picture(61, 47, 128, 128, 0, [], noise=128, seed=17)
    yield "flat", picture(30, 20, 90, 90, 0, [])
    yield "only_noise", picture(100, 80, 128, 128, 0, [], noise=20, seed=19)
    yield "only_gradient", picture(200, 100, 20, 20, 0, [], dx=250, dy=30)


def fnv1a64(data):
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = (digest ^ byte) * 0x100000001B3 % 2**64
    return digest


def specks():
    out = picture(100, 100, 240, 30, 2, k_shape(30, 30, 40))
    for x, y in [(5, 5), (90, 8), (8, 93), (60, 88)]:
        out[y, x] = 0
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show")
    parser.add_argument("--raw", help="also write every input as DIR/NAME.pgm")
    args = parser.parse_args()
    for name, grey in cases():
        height, width = grey.shape
        try:
            out = strokes(grey)
            outcome = f"{fnv1a64(out.tobytes()):#018x}"
        except EmptyPicture:
            out, outcome = None, "empty"
        if args.show in {None, name}:
            print(f"{name} {width} {height} {outcome}")
        if args.show == name and out is not None:
            for row in out:
                print("".join(" .:-=+*#%@"[int(v) * 9 // 255] for v in row))
        if args.raw:
            with open(f"{args.raw}/{name}.pgm", "wb") as file:
                file.write(b"P5 %d %d 255\n" % (width, height) + grey.tobytes())


if __name__ == "__main__":
    main()
