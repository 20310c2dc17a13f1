"""Distortions of hand and pen on batches of pictures, ending as `strokes` ends: cropped to the ink, one margin, full contrast.

`strokes` itself (numpy, one picture at a time) made the pictures that go in; this is its crop again, in torch, because a
distortion moves the box.
"""

import math

import torch
import torch.nn.functional as F

OUT = 48
GLYPH = 41.2  # side of the sign in the output: 48 / (1 + 2 / 12)


def distort(pictures, generator, strength=1.0):
    """`[B, 64, 64]` u8 -> `[B, 1, 48, 48]` float 0..1; all on the device of the generator."""
    x = pictures[:, None].float() / 255
    x = F.grid_sample(x, grid(len(x), generator, strength), align_corners=False)
    x = pen(x, generator)
    x = crop(x)
    return finish(x, generator)


def uniform(generator, n, low, high):
    return torch.rand(n, generator=generator, device=generator.device) * (high - low) + low


def grid(n, g, strength):
    """Affine, slight perspective, elastic: `[n, 64, 64, 2]` where each output pixel looks in the input."""
    turn = torch.randn(n, generator=g, device=g.device).clamp(-2.2, 2.2) * math.radians(8) * strength
    aspect = torch.exp(torch.randn(n, generator=g, device=g.device).clamp(-2, 2) * 0.13 * strength)
    shear = torch.randn(n, generator=g, device=g.device).clamp(-2, 2) * 0.14 * strength
    # 1.25: the warped sign must stay on the canvas, the crop enlarges it again.
    zoom = uniform(g, n, 1.15, 1.3)
    cos, sin = torch.cos(turn), torch.sin(turn)
    matrix = torch.stack([cos * aspect, -sin + shear, sin, cos / aspect], 1).view(n, 2, 2) * zoom[:, None, None]
    axis = (torch.arange(64, device=g.device) + 0.5) / 32 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    base = torch.stack([x, y], -1).view(1, -1, 2).expand(n, -1, -1)
    tilt = torch.randn(n, 1, 2, generator=g, device=g.device).clamp(-2, 2) * 0.08 * strength
    base = base / (1 + (base * tilt).sum(-1, keepdim=True))
    out = (base @ matrix.transpose(1, 2)).view(n, 64, 64, 2)
    for cells, amount in ((4, 0.075), (7, 0.03)):
        bend = torch.randn(n, 2, cells, cells, generator=g, device=g.device) * amount * strength * uniform(g, n, 0.3, 1.3).view(n, 1, 1, 1)
        out = out + F.interpolate(bend, size=(64, 64), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    return out


def gauss(sigma):
    t = torch.arange(-4, 5).float()
    k = torch.exp(-t * t / (2 * sigma * sigma))
    return k / k.sum()


def blur(x, sigma):
    k = gauss(sigma).to(x.device)
    return F.conv2d(F.conv2d(x, k.view(1, 1, 1, 9), padding=(0, 4)), k.view(1, 1, 9, 1), padding=(4, 0))


def pen(x, g):
    """Stroke width: blur, then a soft threshold at a random level, thin to thick."""
    n = len(x)
    soft = blur(x, 1.3)
    # The level is relative to the picture's own peak, so that thin strokes are not erased.
    peak = soft.amax((1, 2, 3), keepdim=True).clamp(min=0.05)
    level = uniform(g, n, 0.2, 0.62).view(n, 1, 1, 1) * peak
    sharp = uniform(g, n, 4, 12).view(n, 1, 1, 1) / peak
    paper = torch.sigmoid(-level * sharp * 1.5)
    changed = (torch.sigmoid((soft - level) * sharp * 1.5) - paper) / (1 - paper)
    keep = (torch.rand(n, 1, 1, 1, generator=g, device=g.device) < 0.25).float()
    return keep * x + (1 - keep) * (changed - 0.03).clamp(min=0)


def crop(x):
    """As steps 10 and 11 of `strokes`: the box of what is dark, made square, with its margin."""
    n, size = len(x), x.shape[-1]
    ink = x[:, 0] > 0.3 * x.amax((1, 2, 3))[:, None, None]
    lo_x, hi_x = ends(ink.any(1), size)
    lo_y, hi_y = ends(ink.any(2), size)
    side = torch.maximum(hi_x - lo_x, hi_y - lo_y).clamp(min=6.0) * (OUT / GLYPH)
    axis = (torch.arange(OUT, device=x.device) + 0.5) / OUT - 0.5
    at_x = (lo_x + hi_x)[:, None] / 2 + axis * side[:, None]
    at_y = (lo_y + hi_y)[:, None] / 2 + axis * side[:, None]
    at = torch.stack([at_x[:, None, :].expand(n, OUT, OUT), at_y[:, :, None].expand(n, OUT, OUT)], -1) / (size / 2) - 1
    return F.grid_sample(x, at, align_corners=False)


def ends(flags, size):
    flags = flags.float()
    low = flags.argmax(1).float()
    high = size - flags.flip(1).argmax(1).float()
    return low, high


def finish(x, g):
    """What camera and threshold leave behind: softness, uneven ink, grain on the strokes, a lost patch."""
    n = len(x)
    mix = torch.rand(n, 1, 1, 1, generator=g, device=g.device)
    x = torch.where(mix < 0.6, x, (1 - mix) * 2.5 * x + (mix * 2.5 - 1.5) * blur(x, 0.9))
    uneven = F.interpolate(torch.rand(n, 1, 3, 3, generator=g, device=g.device), size=(OUT, OUT), mode="bilinear", align_corners=True)
    x = x * (1 - 0.4 * torch.rand(n, 1, 1, 1, generator=g, device=g.device) * uneven)
    x = x * (1 + 0.06 * torch.rand(n, 1, 1, 1, generator=g, device=g.device) * torch.randn(n, 1, OUT, OUT, generator=g, device=g.device))
    lost = torch.rand(n, generator=g, device=g.device) < 0.15
    cy, cx, r = (uniform(g, n, low, high).view(n, 1, 1) for low, high in ((0, OUT), (0, OUT), (2, 6)))
    axis = torch.arange(OUT, device=g.device).float()
    hole = ((axis[None, :, None] - cy) ** 2 + (axis[None, None, :] - cx) ** 2 < r * r) & lost[:, None, None]
    x = x.masked_fill(hole[:, None], 0).clamp(min=0)
    return x / x.amax((1, 2, 3), keepdim=True).clamp(min=0.05)
