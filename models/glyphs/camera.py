"""A letter on paper in front of a cheap camera: perspective, turn, light, shadow, texture, blur, noise."""

import numpy as np
from scipy import ndimage


def photo(ink, rng, side=160, turn_degrees=15.0, hard=1.0):
    """`ink [h, w]` u8, ink 255, -> grey picture `[side, side]` u8. The sign spans 40 to 75 % of the picture."""
    h, w = ink.shape
    span = rng.uniform(0.4, 0.75) * side / max(h, w)
    turn = np.radians(rng.uniform(-turn_degrees, turn_degrees))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / span
    matrix = matrix @ np.array([[1, rng.normal(0, 0.05)], [0, np.exp(rng.normal(0, 0.05))]])
    tilt = rng.normal(0, 0.12, 2) * hard
    y, x = np.mgrid[0:side, 0:side].astype(np.float64)
    y, x = y - side / 2 - rng.normal(0, 0.03) * side, x - side / 2 - rng.normal(0, 0.03) * side
    depth = 1 + (y * tilt[0] + x * tilt[1]) / side
    at = np.stack([(matrix[0, 0] * y + matrix[0, 1] * x) / depth + h / 2, (matrix[1, 0] * y + matrix[1, 1] * x) / depth + w / 2])
    cover = ndimage.map_coordinates(ndimage.gaussian_filter(ink / 255.0, 0.4 / span), at, order=1)
    paper, dark = rng.uniform(130, 240), rng.uniform(15, 70)
    page = paper * (1 + paper_texture(side, rng)) * (1 - cover) + dark * cover
    page = ndimage.gaussian_filter(page * light(side, rng, hard), rng.uniform(0.4, 1.6) * side / 160 * hard)
    return np.clip(page + rng.normal(0, rng.uniform(1, 7) * hard, page.shape), 0, 255).astype(np.uint8)


def paper_texture(side, rng):
    """Fibres and clouds, a few percent of the light."""
    fine = ndimage.gaussian_filter(rng.normal(0, 1, (side, side)), (0.6, 1.5))
    clouds = ndimage.gaussian_filter(rng.normal(0, 1, (side, side)), 9)
    return 0.02 * rng.uniform(0, 1) * fine / fine.std() + 0.02 * rng.uniform(0, 1) * clouds / clouds.std()


def light(side, rng, hard):
    """A gradient, vignetting, and in half of the pictures a soft-edged shadow."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    out = 1 + rng.uniform(0, 0.3) * hard * (np.cos(angle) * x + np.sin(angle) * y) - rng.uniform(0, 0.12) * hard * (x * x + y * y)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        edge = (np.cos(angle) * x + np.sin(angle) * y - rng.uniform(-0.6, 0.6)) / rng.uniform(0.02, 0.3)
        out = out * (1 - rng.uniform(0.15, 0.5) * hard / (1 + np.exp(-np.clip(edge, -30, 30))))
    return out
