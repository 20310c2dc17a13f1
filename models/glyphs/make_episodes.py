"""Pictures and episodes for graft's own whole path (`tests/src/bin/fewshot.rs`): what `evaluate.py` measures on the float
network, as files that a board would be shown.

    python3 make_episodes.py OUT [--omniglot DIR] [--seed 1]

Writes into OUT, besides pictures: `runs.txt` (Omniglot's one-shot runs, the stored images as they are), and for the held-out
scripts `clean-1.txt`, `clean-5.txt`, `camera-1.txt`, `camera-5.txt`: 20-way, 1,000 episodes each. Then, for each of them

    graft quantize model.onnx --calib demo/calib --resize strokes --norm unit -o glyphs.graft
    fewshot glyphs.graft model.onnx features OUT OUT/clean-1.txt --mean 0 --std 255
"""

import argparse
import os
import shutil

import numpy as np
from PIL import Image

import camera
import fonts
from strokes import EmptyPicture, strokes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--omniglot")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=1000)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    if args.omniglot:
        one_shot_runs(f"{args.omniglot}/one_shot_runs", args.out)
    for name, with_camera in (("clean", False), ("camera", True)):
        held_out_scripts(args, name, with_camera)


def write(out, name, images, episodes):
    """`episodes`: (support, query), each a list of (image, class)."""
    with open(f"{out}/{name}.txt", "w", encoding="ascii") as file:
        for i, image in enumerate(images):
            file.write(f"# {i} {image}\n")
        for support, query in episodes:
            file.write(" | ".join(" ".join(f"{i}:{k}" for i, k in items) for items in (support, query)) + "\n")


def one_shot_runs(folder, out):
    images, episodes = [], []
    for run in sorted(os.listdir(folder)):
        with open(f"{folder}/{run}/class_labels.txt", encoding="ascii") as file:
            pairs = [line.split() for line in file if line.strip()]
        support = sorted({s for _, s in pairs})
        first = len(images)
        images += [f"runs/{f}" for f in support]
        for query, answer in pairs:
            images.append(f"runs/{query}")
            shown = [(first + k, k) for k in range(len(support))]
            episodes.append((shown, [(len(images) - 1, support.index(answer))]))
        for kind in ("training", "test"):
            shutil.copytree(f"{folder}/{run}/{kind}", f"{out}/runs/{run}/{kind}", dirs_exist_ok=True)
    write(out, "runs", images, episodes)


def held_out_scripts(args, name, with_camera):
    """As in `evaluate.py`: within a script, support and query of different designs."""
    pictures, labels, designs, names = fonts.pool(args.seed, fonts.EVALUATION_SCRIPTS, only=fonts.HELD_OUT_SCRIPTS, min_fonts=6)
    rng = np.random.default_rng(args.seed)
    os.makedirs(f"{args.out}/{name}", exist_ok=True)
    images = [f"{name}/{i:05}.png" for i in range(len(pictures))]
    usable = np.ones(len(pictures), bool)
    for i, picture in enumerate(pictures):
        usable[i] = save(picture, rng, with_camera, f"{args.out}/{images[i]}")
    by_label = [{} for _ in names]
    for row, (label, design) in enumerate(zip(labels, designs)):
        if usable[row]:
            by_label[label].setdefault(design, []).append(row)
    known = [i for i in range(len(names)) if len(by_label[i]) >= 6]
    of = {s: [i for i in known if names[i][0] == s] for s in sorted({s for s, _ in names})}
    scripts = [s for s in of if len(of[s]) >= 20]
    episodes = {1: [], 5: []}
    for _ in range(args.episodes):
        classes = rng.choice(of[scripts[rng.integers(len(scripts))]], 20, replace=False)
        query, support = [], {1: [], 5: []}
        for k, c in enumerate(classes):
            rows = [rng.choice(by_label[c][d]) for d in rng.permutation(sorted(by_label[c]))[:6]]
            query.append((rows[0], k))
            for shots in support:
                support[shots] += [(row, k) for row in rows[1 : 1 + shots]]
        for shots in support:
            episodes[shots].append((support[shots], query))
    print(f"{name}: scripts {' '.join(scripts)}, {sum(len(of[s]) for s in scripts)} letters, {usable.sum()} pictures")
    for shots in episodes:
        write(args.out, f"{name}-{shots}", [image if usable[i] else images[int(np.argmax(usable))] for i, image in enumerate(images)], episodes[shots])


def save(picture, rng, with_camera, path):
    """Writes the page that a board would see; False if no try shows a sign."""
    for _ in range(20):
        page = camera.photo(picture, rng) if with_camera else 255 - np.pad(picture, 20)
        page = np.clip(np.round(page), 0, 255).astype(np.uint8)
        try:
            strokes(page)
        except EmptyPicture:
            continue
        Image.fromarray(page).save(path)
        return True
    return False


if __name__ == "__main__":
    main()
