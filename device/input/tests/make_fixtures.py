"""Writes tests/fixtures and tests/fixtures/expected.txt.

Needs Pillow and NumPy (made with Pillow 12.3 and NumPy 2.4). Pillow 13 resizes columns before rows where that is cheaper,
which rounds otherwise: use an earlier one. Run in this folder:

    python make_fixtures.py

For PNG, `expected.txt` holds the hash of the pixels that Pillow or NumPy computes, so that the golden test compares two
implementations. For JPEG it holds the picture's mean per cell of a 4 x 4 grid as Pillow decodes it: libjpeg and our decoder
differ by a step here and there. The resize lines are hashes of Pillow's own results.
"""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

OUT = Path(__file__).parent / "fixtures"


def fnv(data: bytes) -> str:
    """FNV-1a, 64 bits."""
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 % 2**64
    return f"{h:016x}"


def noise(n: int, seed: int = 1) -> np.ndarray:
    """Bytes of a linear congruential generator, as in the tests."""
    state, out = seed, bytearray()
    for _ in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(state >> 56)
    return np.frombuffer(bytes(out), np.uint8)


def scene(width: int, height: int) -> Image.Image:
    """Gradients, a disc and a little noise: smooth enough for JPEG, different in every corner."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    disc = (x - 0.3 * width) ** 2 + (y - 0.4 * height) ** 2 < (0.2 * width) ** 2
    rgb = np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 5 + y / 9)], -1)
    rgb[disc] = [230, 40, 60]
    rgb += noise(rgb.size).reshape(rgb.shape) / 16 - 8
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


lines = []


def png(name: str, data: bytes, rgb: np.ndarray):
    (OUT / name).write_bytes(data)
    lines.append(f"png {name} {rgb.shape[1]} {rgb.shape[0]} {fnv(rgb.astype(np.uint8).tobytes())}")


def saved(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def over_black(v, alpha):
    return np.floor(v.astype(np.float64) * alpha / 255 + 0.5)


def narrow(v):
    return np.floor(v.astype(np.float64) / 257 + 0.5)


def raw_png(width, height, depth, color, rows: bytes, extra=b"") -> bytes:
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    stride = len(rows) // height
    filtered = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    tail = chunk(b"IDAT", zlib.compress(filtered, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + extra + tail


def make_png():
    w, h = 29, 21
    rgb = np.asarray(scene(w, h))
    alpha = noise(w * h, 2).reshape(h, w, 1)
    png("rgb.png", saved(Image.fromarray(rgb), "PNG"), rgb)
    rgba = np.concatenate([rgb, alpha], -1)
    png("rgba.png", saved(Image.fromarray(rgba), "PNG"), over_black(rgb, alpha))
    grey = rgb[..., :1]
    png("grey.png", saved(Image.fromarray(grey[..., 0]), "PNG"), np.repeat(grey, 3, 2))
    la = Image.fromarray(np.concatenate([grey, alpha], -1), "LA")
    png("grey_alpha.png", saved(la, "PNG"), np.repeat(over_black(grey, alpha), 3, 2))
    palette = Image.fromarray(rgb).quantize(40)
    png("palette.png", saved(palette, "PNG"), np.asarray(palette.convert("RGB")))
    seen = Image.fromarray(rgb).quantize(5)
    bytes_ = saved(seen, "PNG", transparency=bytes([255, 0, 128, 77]), bits=4)
    back = np.asarray(Image.open(io.BytesIO(bytes_)).convert("RGBA"))
    png("palette4_transparent.png", bytes_, over_black(back[..., :3], back[..., 3:]))
    for depth in (1, 2, 4):
        per = 8 // depth
        stride = -(-w // per)
        rows = noise(stride * h, depth).reshape(h, stride)
        bits = np.unpackbits(rows, axis=1).reshape(h, -1, depth)
        value = (bits * (1 << np.arange(depth)[::-1])).sum(-1)[:, :w]
        scaled = value * 255 // (2**depth - 1)
        png(f"grey{depth}.png", raw_png(w, h, depth, 0, rows.tobytes()), np.repeat(scaled[..., None], 3, 2))
    for color, samples, name in ((0, 1, "grey16"), (2, 3, "rgb16"), (4, 2, "grey_alpha16"), (6, 4, "rgba16")):
        v = noise(2 * w * h * samples, 10 + color).view(">u2").reshape(h, w, samples)
        v8 = narrow(v)
        out = v8[..., :1] if samples < 3 else v8[..., :3]
        if color & 4:
            out = over_black(out, v8[..., -1:])
        png(f"{name}.png", raw_png(w, h, 16, color, v.tobytes()), np.repeat(out, 3, 2) if samples < 3 else out)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(saved(Image.fromarray(rgb), "PNG", exif=exif))))
    png("exif6.png", saved(Image.fromarray(rgb), "PNG", exif=exif), np.asarray(turned))
    # Adam7; Pillow does not write it.
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    import zlib

    parts = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in passes for row in rgb[y::dy, x::dx])
    plain = raw_png(w, h, 8, 2, rgb.tobytes())
    head = bytearray(plain[:33])
    head[28] = 1
    head[29:33] = struct.pack(">I", zlib.crc32(head[12:29]))
    data = zlib.compress(parts, 9)
    idat = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    png("interlaced.png", bytes(head) + idat + plain[-12:], rgb)


def jpeg(name: str, data: bytes):
    (OUT / name).write_bytes(data)
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    rgb = np.asarray(image).astype(np.float64)
    h, w = rgb.shape[:2]
    cells = [
        rgb[i * h // 4 : (i + 1) * h // 4, j * w // 4 : (j + 1) * w // 4].mean((0, 1)) for i in range(4) for j in range(4)
    ]
    means = " ".join(f"{v:.1f}" for cell in cells for v in cell)
    lines.append(f"jpeg {name} {w} {h} {means}")


def make_jpeg():
    image = scene(61, 45)
    for name, options in {
        "s444": dict(subsampling=0),
        "s422": dict(subsampling=1),
        "s420": dict(subsampling=2),
        "progressive": dict(progressive=True),
        "restarts": dict(restart_marker_blocks=3),
        "rgb": dict(keep_rgb=True),
    }.items():
        jpeg(f"{name}.jpg", saved(image, "JPEG", quality=85, **options))
    jpeg("grey.jpg", saved(image.convert("L"), "JPEG"))
    cmyk = saved(image.convert("CMYK"), "JPEG", quality=90)
    jpeg("cmyk.jpg", cmyk)
    # The same samples declared as YCCK: Adobe's transform byte is the last of its segment.
    at = cmyk.index(b"Adobe") + 11
    jpeg("ycck.jpg", cmyk[:at] + b"\2" + cmyk[at + 1 :])
    for value in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = value
        jpeg(f"exif{value}.jpg", saved(scene(24, 16), "JPEG", quality=80, exif=exif))


def make_resize():
    filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "nearest": Image.NEAREST}
    sizes = [(97, 61, 32, 32), (97, 61, 224, 180), (31, 200, 64, 17), (500, 3, 7, 9), (1, 1, 5, 4), (64, 64, 64, 20)]
    for w, h, to_w, to_h in sizes:
        image = Image.fromarray(noise(w * h * 3, w).reshape(h, w, 3))
        for name, resample in filters.items():
            lines.append(f"resize {name} {w} {h} {to_w} {to_h} {fnv(image.resize((to_w, to_h), resample).tobytes())}")


def make_geometry():
    """torchvision's Resize and CenterCrop, and a letterbox, written out; each line is one case of the test."""
    w, h, to = 97, 61, 32
    image = Image.fromarray(noise(w * h * 3, w).reshape(h, w, 3))

    def shortest_crop(short, resample):
        long = int(short * w / h)
        resized = np.asarray(image.resize((long, short), resample))
        top, left = int(round((short - to) / 2.0)), int(round((long - to) / 2.0))
        return resized[top : top + to, left : left + to]

    boxed = np.full((to, to, 3), 114, np.uint8)
    inner = round(h * to / w)
    top = (to - inner) // 2
    boxed[top : top + inner] = np.asarray(image.resize((to, inner), Image.BILINEAR))
    r, g, b = np.asarray(image).astype(int).transpose(2, 0, 1)
    grey = Image.fromarray(((77 * r + 150 * g + 29 * b + 128) >> 8).astype(np.uint8))
    for name, pixels in {
        "bgr_shortest_crop_36_bilinear": shortest_crop(36, Image.BILINEAR)[..., ::-1],
        "rgb_shortest_crop_80_bicubic": shortest_crop(80, Image.BICUBIC),
        "rgb_letterbox_114_bilinear": boxed,
        "grey_squash_bilinear": np.asarray(grey.resize((to, to), Image.BILINEAR)),
    }.items():
        lines.append(f"geometry {name} {fnv(np.ascontiguousarray(pixels).tobytes())}")


def make_arrays():
    """The same 24 values in every file; `expected.txt` is not needed, they are 0, 1, ... 23."""
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.save(OUT / "fortran.npy", np.asfortranarray(values.astype(">f8")))
    np.savez(OUT / "stored.npz", a=values, b=values.astype(np.float16))
    np.savez_compressed(OUT / "deflated.npz", a=values.astype(np.int64))


OUT.mkdir(exist_ok=True)
make_png()
make_jpeg()
make_resize()
make_geometry()
make_arrays()
(OUT / "expected.txt").write_text("\n".join(lines) + "\n")
