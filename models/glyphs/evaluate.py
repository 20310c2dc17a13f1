"""Few-shot figures of an encoder: episodes on scripts it never saw, and Omniglot's one-shot runs.

    python3 evaluate.py model.onnx --omniglot DIR     # everything; the runs are for the end, not for choosing

An encoder is a function `[n, 48, 48]` u8 -> `[n, D]`. NCM: cosine to the class mean, after subtracting the mean of the
class means from both, as `device/heads` does; ridge: closed form on one-hot targets after the same centring.
"""

import argparse
import sys

import numpy as np

import camera
import drawings
import fonts
from strokes import EmptyPicture, strokes


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True).clip(1e-9)


def ncm(support, query):
    """`support [C, K, D]`, `query [Q, D]` -> class `[Q]`."""
    means = unit(support).mean(1)
    centre = means.mean(0)
    return (unit(unit(query) - centre) @ unit(means - centre).T).argmax(1)


def ridge(support, query, lambda_rel=1.0):
    c, k, d = support.shape
    x = unit(support).reshape(c * k, d)
    centre = x.mean(0)
    x = x - centre
    kernel = x @ x.T
    targets = np.repeat(np.eye(c), k, 0) - 1 / c
    weights = x.T @ np.linalg.solve(kernel + lambda_rel * np.trace(kernel) / len(x) * np.eye(len(x)), targets)
    return ((unit(query) - centre) @ weights).argmax(1)


def one_shot_runs(encode, folder):
    """Share of the 400 trials answered rightly, support-centred NCM and plain cosine."""
    right, plain = [], []
    for support, query, answer in drawings.runs(folder):
        s, q = encode(support), encode(query)
        right += list(ncm(s[:, None], q) == answer)
        plain += list((unit(q) @ unit(s).T).argmax(1) == answer)
    return np.mean(right), np.mean(plain)


def alphabets(encode, pictures, labels, names, seed, n_episodes=200):
    """20-way one-shot within an alphabet, one drawing of each as support, one of another drawer as query."""
    rng = np.random.default_rng(seed)
    features = encode(pictures)
    groups = sorted({a for a, _ in names})
    of = {a: [i for i, (b, _) in enumerate(names) if b == a] for a in groups}
    rows = {i: np.nonzero(labels == i)[0] for i in range(len(names))}
    scores = []
    for _ in range(n_episodes):
        classes = of[groups[rng.integers(len(groups))]]
        classes = rng.choice(classes, min(20, len(classes)), replace=False)
        drawer = rng.permutation(20)[:2]  # files are in the order of drawers
        s, q = (features[[rows[i][d] for i in classes]] for d in drawer)
        scores.append((ncm(s[:, None], q) == np.arange(len(classes))).mean())
    return interval(scores)


def held_out_scripts(encode, seed, with_camera, n_episodes=1000):
    """20-way, within a held-out script, support and query from different designs; 1 and 5 shots, NCM and ridge.

    With 5 shots the support is five designs. Returns {"ncm 1": (mean, half width of the 95 % interval), ..}.
    """
    pictures, labels, designs, names = fonts.pool(seed, fonts.EVALUATION_SCRIPTS, only=fonts.HELD_OUT_SCRIPTS, min_fonts=6)
    rng = np.random.default_rng(seed)
    features = encode(np.stack([seen(p, rng, with_camera) for p in pictures]))
    by_label = [{} for _ in names]
    for row, (label, design) in enumerate(zip(labels, designs)):
        by_label[label].setdefault(design, []).append(row)
    scripts = sorted({s for s, _ in names})
    of = {s: [i for i, (t, _) in enumerate(names) if t == s] for s in scripts}
    usable = [s for s in scripts if len(of[s]) >= 20]
    scores = {}
    for _ in range(n_episodes):
        classes = rng.choice(of[usable[rng.integers(len(usable))]], 20, replace=False)
        support, query = [], []
        for c in classes:
            order = rng.permutation(sorted(by_label[c]))[:6]
            rows = [rng.choice(by_label[c][d]) for d in order]
            query.append(rows[0])
            support.append(rows[1:])
        s, q, answer = features[support], features[query], np.arange(20)
        for shots in (1, 5):
            for name, head in (("ncm", ncm), ("ridge", ridge)):
                scores.setdefault(f"{name} {shots}", []).append((head(s[:, :shots], q) == answer).mean())
    return {k: interval(v) for k, v in scores.items()}, usable, len(names)


def seen(picture, rng, with_camera):
    """What the board gets: the letter on a page, through `strokes`."""
    for _ in range(20):
        page = camera.photo(picture, rng) if with_camera else 255 - np.pad(picture, 20)
        try:
            return strokes(page)
        except EmptyPicture:
            continue
    return np.zeros((48, 48), np.uint8)


def interval(scores):
    return float(np.mean(scores)), float(1.96 * np.std(scores) / np.sqrt(len(scores)))


def onnx_encoder(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def encode(pictures):
        x = pictures[:, None].astype(np.float32) / 255
        return np.concatenate([session.run(None, {name: x[i : i + 256]})[0] for i in range(0, len(x), 256)])

    return encode


def report(encode, seed, omniglot=None, with_runs=True):
    """Lines of `name: value`."""
    lines = []
    if omniglot and with_runs:
        centred, plain = one_shot_runs(encode, f"{omniglot}/one_shot_runs")
        lines.append(f"one-shot runs, 400 trials: NCM {100 * centred:.2f} %, plain cosine {100 * plain:.2f} %")
    for with_camera in (False, True):
        scores, scripts, n = held_out_scripts(encode, seed, with_camera)
        what = "camera-like" if with_camera else "clean"
        text = ", ".join(f"{k} {100 * m:.1f} +- {100 * h:.1f}" for k, (m, h) in scores.items())
        lines.append(f"held-out scripts {' '.join(scripts)} ({n} letters), {what}, 20-way, 1000 episodes: {text}")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--omniglot")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print("\n".join(report(onnx_encoder(args.model), args.seed, args.omniglot)), file=sys.stdout)
