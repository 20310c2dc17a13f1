"""Makes the demo pictures: signs of scripts the encoder never saw, as if penned on paper and photographed.

    python3 make_demo.py --out demo
    python3 make_demo.py --out demo --check model.onnx

board-a/CLASS/*.jpg   3 classes, 5 shots each
board-b/CLASS/*.jpg   3 other classes, 5 shots each
test/CLASS/*.jpg      all 6 classes, 4 pictures each, from font designs that gave no shot
calib/*.jpg           24 unlabelled pictures of scripts the encoder was trained on

Each picture starts from the thinned letter of another font, is bent and slanted anew, drawn with a pen of its own width, then
photographed (`camera.py`). No two are copies. All are ours; the fonts are named in the card.
"""

import argparse
import os
import re
import shutil

import numpy as np
from PIL import Image
from scipy import ndimage

import camera
import fonts
from strokes import grey_from_rgb, strokes

BOARDS = {
    "board-a": {"thai-ko-kai": 0x0E01, "georgian-ghan": 0x10E6, "khmer-ka": 0x1780},
    "board-b": {"thai-cho-ching": 0x0E09, "georgian-zhar": 0x10DF, "khmer-mo": 0x1798},
}
SHOTS, TESTS, CALIBRATION = 5, 4, 24
CALIBRATION_SCRIPTS = ["Latn", "Grek", "Hira", "Kana", "Arab", "Deva", "Taml", "Hebr", "Armn", "Cher", "Laoo", "Hang"]
SIDE = 168
# Khmer headline and cursive styles, in which the letters are other shapes.
ORNATE = re.compile(r"muol|moul|ratanakiri|metal|fasthand|freehand", re.I)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="demo")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--check", help="model.onnx: measure it on the pictures in --out, make none")
    args = parser.parse_args()
    if args.check:
        check(args.check, args.out)
        return
    rng = np.random.default_rng(args.seed)
    for folder in [*BOARDS, "test", "calib"]:
        shutil.rmtree(f"{args.out}/{folder}", ignore_errors=True)
    paths = {code: p for _, code, p in signs()}
    used = set()
    for board, classes in BOARDS.items():
        for name, code in classes.items():
            chosen = one_per_design(paths[code], SHOTS + TESTS, rng)
            used.update(fonts.family(p) for p in chosen)
            for i, path in enumerate(chosen):
                part, number = (board, i + 1) if i < SHOTS else ("test", i + 1 - SHOTS)
                save(page(fonts.render(path, code, 110), rng), f"{args.out}/{part}/{name}/{number}.jpg", rng)
    letters = [(s, c, p) for s, c, p in fonts.collect(args.seed, fonts.HELD_OUT_SCRIPTS) if s in CALIBRATION_SCRIPTS]
    for i in range(CALIBRATION):
        same = [x for x in letters if x[0] == CALIBRATION_SCRIPTS[i % len(CALIBRATION_SCRIPTS)]]
        bitmap = None
        while bitmap is None:
            _, code, p = same[rng.integers(len(same))]
            bitmap = fonts.render(p[0], code, 110)
        save(page(bitmap, rng, 128), f"{args.out}/calib/{i + 1:02}.jpg", rng)
    n_bytes = sum(os.path.getsize(f"{d}/{f}") for d, _, files in os.walk(args.out) for f in files)
    print(f"{n_bytes} bytes; designs: {', '.join(sorted(used))}")


def signs():
    """(script, code, paths) of the demo's letters, all font files that hold them."""
    wanted = {code for classes in BOARDS.values() for code in classes.values()}
    holders = {code: [] for code in sorted(wanted)}
    for path in fonts.files():
        for code in wanted & set(fonts.letters(path)):
            if not ORNATE.search(path) and fonts.render(path, code) is not None:
                holders[code].append(path)
    return [("", code, holders[code]) for code in holders]


def one_per_design(paths, n, rng):
    """n files of n different designs, fewer only if there are not as many; then another weight of a design."""
    by_design = {}
    for path in paths:
        by_design.setdefault(fonts.family(path), []).append(path)
    queues = [list(rng.permutation(by_design[d])) for d in rng.permutation(sorted(by_design))]
    return [str(q[i]) for i in range(9) for q in queues if i < len(q)][:n]


def page(bitmap, rng, side=SIDE):
    """The letter penned and photographed, `[side, side]` u8; drawn again if `strokes` would refuse it."""
    while True:
        ink = penned(bitmap, rng)
        picture = camera.photo(ink, rng, side, turn_degrees=10, hard=0.9)
        try:
            strokes(picture)
            return picture
        except ValueError:
            continue


def penned(bitmap, rng):
    """Thin lines of the letter, bent, with a round pen: `[h, w]` u8."""
    bitmap = np.pad(bitmap, 24)
    line = fonts.zhang_suen(bitmap[None] > 110)[0]
    h, w = line.shape
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    bend = [ndimage.zoom(rng.normal(0, 2.2, (5, 5)), (h / 5, w / 5), order=3)[:h, :w] for _ in range(2)]
    slant = rng.normal(0, 0.12)
    at = [y + bend[0], x + bend[1] + slant * (y - h / 2)]
    # Distance to the line survives bending, a one-pixel line would not.
    distance = ndimage.map_coordinates(ndimage.distance_transform_edt(~line), at, order=1, mode="nearest")
    width = rng.uniform(2.2, 4.5) * (1 + 0.15 * ndimage.zoom(rng.normal(0, 1, (4, 4)), (h / 4, w / 4), order=1)[:h, :w])
    ink = (255 * np.clip(width + 0.5 - distance, 0, 1)).astype(np.uint8)
    ys, xs = np.nonzero(ink.any(1))[0], np.nonzero(ink.any(0))[0]
    return ink[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


def save(grey, path, rng):
    """As JPEG in colour, under slightly warm or cold light."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    light = np.array([1.0, rng.uniform(0.93, 1.0), rng.uniform(0.82, 1.0)])
    rgb = np.clip(grey[..., None] * light, 0, 255).astype(np.uint8)
    Image.fromarray(rgb).save(path, quality=72)


def check(model, folder):
    """Nearest class mean on the six classes, each board's three, and all with 1 shot."""
    import evaluate

    encode = evaluate.onnx_encoder(model)

    def read(path):
        with Image.open(path) as image:
            return strokes(grey_from_rgb(np.asarray(image.convert("RGB"))))

    def features(base, name):
        return encode(np.stack([read(f"{base}/{name}/{f}") for f in sorted(os.listdir(f"{base}/{name}"))]))

    everything = [(b, n) for b, classes in BOARDS.items() for n in classes]
    for title, chosen in [*[(b, [(b, n) for n in BOARDS[b]]) for b in BOARDS], ("both boards", everything)]:
        support = np.stack([features(f"{folder}/{b}", n) for b, n in chosen])
        query = np.concatenate([features(f"{folder}/test", n) for _, n in chosen])
        answer = np.repeat(np.arange(len(chosen)), TESTS)
        print(f"{title}: 5 shots, {(evaluate.ncm(support, query) == answer).sum()} of {len(answer)} right", end="; ")
        one = [(evaluate.ncm(support[:, k : k + 1], query) == answer).mean() for k in range(SHOTS)]
        print(f"1 shot, mean of 5 choices {100 * np.mean(one):.1f} %")


if __name__ == "__main__":
    main()
