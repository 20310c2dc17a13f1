"""Trains the glyph encoder and writes `model.onnx`.

    python3 train.py --omniglot ../../../shared/assets/data/omniglot   # fonts and Omniglot's background_small
    python3 train.py --fonts-only
    python3 train.py --omniglot DIR --choose                           # alphabets left out: what to make choices on
    python3 card.py --log train.log                                    # the card, from what a run printed

Needs PyTorch, numpy, scipy, pillow, fonttools, onnx, onnxruntime from PyPI and the Debian packages in `fonts.py`.
"""

import argparse
import os
import time

import numpy as np
import onnx
import torch
import torch.nn.functional as F

import drawings
import evaluate
import fonts
from distort import distort
from net import FEATURES, Encoder

# Left out by --choose, with their scripts in the fonts.
CHOOSING = {"Balinese": "Bali", "Tagalog": "Tglg", "Sanskrit": "Deva"}

GROUPS, CLASSES, VIEWS = 8, 16, 2  # one batch: classes of 8 alphabets, 16 of each, 2 pictures of each


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--omniglot", help="folder that holds background_small and one_shot_runs")
    parser.add_argument("--fonts-only", action="store_true", help="train without Omniglot (still measured on it if given)")
    parser.add_argument("--choose", action="store_true", help="leave CHOOSING out and measure on it, not on the runs")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda; the random numbers, hence the bytes, depend on it")
    parser.add_argument("--pool", help="file of pictures and classes: written if it is not there, else used instead of the fonts")
    parser.add_argument("--only-pool", action="store_true", help="write --pool and stop")
    parser.add_argument("--only-train", action="store_true", help="stop after the export, without figures")
    parser.add_argument("--minutes", type=float, help="instead of --steps: train about this long (then the bytes depend on the load)")
    parser.add_argument("--out", default="model.onnx")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    print(args, flush=True)

    pictures, classes = kept_pool(args) if args.pool else training_pool(args)
    if args.only_pool:
        return
    encoder = train(pictures, classes, args)
    export(encoder, args.out)
    if args.only_train:
        return
    if args.choose:
        held = drawings.background(f"{args.omniglot}/background_small", CHOOSING, size=48)
        mean, half = evaluate.alphabets(evaluate.onnx_encoder(args.out), *held, seed=args.seed)
        print(f"alphabets left out, 20-way one-shot, 200 episodes: {100 * mean:.2f} +- {100 * half:.2f} %")
    lines = evaluate.report(evaluate.onnx_encoder(args.out), args.seed, args.omniglot, with_runs=not args.choose)
    print("\n".join(lines))


class Classes:
    """Which pictures show which class, which classes share an alphabet."""

    def __init__(self):
        self.rows, self.group, self.turns = [], [], []

    def add(self, labels, first_row, groups, turns):
        order = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[order], np.arange(labels.max() + 1))
        for label, rows in enumerate(np.split(order, starts[1:])):
            self.rows.append(rows + first_row)
            self.group.append(groups[label])
            self.turns.append(turns)


def kept_pool(args):
    """As `training_pool`, from or to a file."""
    if not os.path.exists(args.pool):
        pictures, classes = training_pool(args)
        rows = np.concatenate(classes.rows)
        sizes = np.array([len(r) for r in classes.rows])
        np.savez_compressed(args.pool, pictures=pictures.numpy(), rows=rows, sizes=sizes, group=classes.group, turns=classes.turns)
        return pictures, classes
    kept = np.load(args.pool)
    classes = Classes()
    classes.rows = np.split(kept["rows"], np.cumsum(kept["sizes"])[:-1])
    classes.group, classes.turns = [str(g) for g in kept["group"]], [bool(t) for t in kept["turns"]]
    if args.fonts_only:
        keep = [i for i, group in enumerate(classes.group) if not group.startswith("omniglot ")]
        classes.rows, classes.group = [classes.rows[i] for i in keep], [classes.group[i] for i in keep]
        classes.turns = [classes.turns[i] for i in keep]
    return torch.from_numpy(kept["pictures"]), classes


def training_pool(args):
    """`pictures [n, 64, 64]` u8 tensor and their `Classes`."""
    start = time.time()
    skip = fonts.HELD_OUT_SCRIPTS | (set(CHOOSING.values()) if args.choose else set())
    letters, labels, _, names = fonts.pool(args.seed, skip)
    assert not {script for script, _ in names} & (fonts.EVALUATION_SCRIPTS | skip)
    # Skeletons of at most 3 fonts per letter; more would be nearly the same lines.
    rank = np.zeros(len(labels), int)
    seen = {}
    for row in np.random.default_rng(args.seed).permutation(len(labels)):
        rank[row] = seen[labels[row]] = seen.get(labels[row], -1) + 1
    thin = np.nonzero(rank < 3)[0]
    lines = fonts.skeletons(letters[thin])
    # A photo of one rendering per letter, as `strokes` sees it.
    rng = np.random.default_rng(args.seed)
    photographed = np.nonzero(rank < 1)[0]
    photos = np.stack([fonts.fit(evaluate.seen(letters[row], rng, True)) for row in photographed])
    classes = Classes()
    classes.add(np.concatenate([labels, labels[thin], labels[photographed]]), 0, [script for script, _ in names], False)
    parts = [letters, lines, photos]
    print(f"fonts: {len(names)} letters of {len({s for s, _ in names})} scripts, {len(letters)} renderings, {len(lines)} skeletons, {len(photos)} photos")
    if args.omniglot and not args.fonts_only:
        folder = f"{args.omniglot}/background_small"
        wanted = [a for a in sorted(os.listdir(folder)) if not (args.choose and a in CHOOSING)]
        drawn, drawn_labels, drawn_names = drawings.background(folder, wanted)
        classes.add(drawn_labels, sum(map(len, parts)), ["omniglot " + alphabet for alphabet, _ in drawn_names], True)
        parts.append(drawn)
        print(f"Omniglot: {len(drawn)} drawings of {len(drawn_names)} characters of {len(wanted)} alphabets")
    print(f"pool: {time.time() - start:.0f} s", flush=True)
    return torch.from_numpy(np.concatenate(parts)), classes


def batches(classes, rng):
    """Yields rows `[B]`, softmax label `[B]` (-1: none), turn `[B]` 0..7; a class's views lie side by side.

    A turned or mirrored alphabet is another alphabet. Omniglot's eight have softmax classes of their own; letters of fonts
    have one, so their turned forms only enter the pair loss.
    """
    groups = {}
    for i, group in enumerate(classes.group):
        groups.setdefault(group, []).append(i)
    drawn = sorted(g for g in groups if g.startswith("omniglot "))
    printed = sorted(set(groups) - set(drawn))
    weight = np.array([len(groups[g]) for g in printed]) ** 0.7
    first_label, n_labels = [], 0
    for turns in classes.turns:
        first_label.append(n_labels)
        n_labels += 8 if turns else 1
    yield n_labels
    while True:
        n_drawn = GROUPS // 2 if drawn else 0
        chosen = [(drawn[i], t) for i, t in zip(rng.integers(len(drawn), size=n_drawn), rng.permutation(8))] if drawn else []
        for g in rng.choice(len(printed), GROUPS - n_drawn, replace=False, p=weight / weight.sum()):
            chosen.append((printed[g], int(rng.integers(1, 8)) if rng.random() < 0.4 else 0))
        rows, labels, turns = [], [], []
        for group, turn in chosen:
            members = groups[group]
            for c in rng.choice(members, CLASSES, replace=len(members) < CLASSES):
                available = classes.rows[c]
                rows += list(rng.choice(available, VIEWS, replace=len(available) < VIEWS))
                own = first_label[c] + turn if classes.turns[c] else (first_label[c] if turn == 0 else -1)
                labels += [own] * VIEWS
                turns += [turn] * VIEWS
        yield np.array(rows), np.array(labels), np.array(turns)


def train(pictures, classes, args):
    source = batches(classes, np.random.default_rng(args.seed))
    n_labels = next(source)
    device = torch.device(args.device)
    pictures = pictures.to(device)
    encoder, classifier = Encoder().to(device), torch.nn.Linear(FEATURES, n_labels, bias=False, device=device)
    torch.nn.init.normal_(classifier.weight, std=0.01)
    print(f"{sum(p.numel() for p in encoder.parameters())} parameters, {n_labels} softmax classes", flush=True)
    encoder = encoder.to(memory_format=torch.channels_last)
    parameters = [
        {"params": [p for p in encoder.parameters() if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in encoder.parameters() if p.ndim == 1], "weight_decay": 0.0},
        {"params": classifier.parameters(), "weight_decay": 0.02},
    ]
    rate = 3e-3
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    average = torch.optim.swa_utils.AveragedModel(encoder, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True)
    g = torch.Generator(device).manual_seed(args.seed)
    start = time.time()
    running = np.zeros(3)
    progress, step = 0.0, 0
    while progress < 1:
        rows, labels, turns = next(source)
        # Warm-up, flat, then to zero.
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 60) * min(1, (1 - progress) / 0.6)
        x = turned(pictures[torch.from_numpy(rows).to(device)], torch.from_numpy(turns).to(device))
        x = distort(x, g).to(memory_format=torch.channels_last)
        z = encoder(x)
        labels = torch.from_numpy(labels).to(device)
        known = torch.nonzero(labels >= 0)[:, 0]
        logits = classifier(F.normalize(z[known]) * 16)
        softmax = F.cross_entropy(logits, labels[known], label_smoothing=0.05)
        pairs = pair_loss(z)
        loss = softmax + 1.5 * pairs
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(encoder)
        step += 1
        progress = (time.time() - start) / (60 * args.minutes) if args.minutes else step / args.steps
        if step % 10 == 0:  # Reading a loss waits for the device.
            running += [softmax.item(), pairs.item(), 1]
        if step % 100 == 0:
            s, p = running[:2] / running[2]
            print(f"step {step} softmax {s:.3f} pairs {p:.3f} {time.time() - start:.0f} s", flush=True)
            running[:] = 0
    print(f"{step} steps in {time.time() - start:.0f} s", flush=True)
    return average.module.eval()


def turned(x, turns):
    """Turn 0..7: quarter turns, then mirrored."""
    out = x.clone()
    for turn in range(1, 8):
        at = turns == turn
        if at.any():
            y = torch.rot90(x[at], turn % 4, (1, 2))
            out[at] = y.flip(2) if turn >= 4 else y
    return out


def pair_loss(z):
    """Each picture has to find its pair among one picture of every class of the batch: one-shot, as it will be used."""
    z = F.normalize(z).view(-1, VIEWS, FEATURES)
    similarity = z[:, 0] @ z[:, 1].T * 14
    target = torch.arange(len(z), device=z.device)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


def export(encoder, path):
    """ONNX, opset 17, batch norm folded, input `image`, output `features`.

    By the TorchScript exporter: it folds batch norm and writes a symbolic batch without further passes.
    """
    torch.onnx.export(
        encoder.cpu().to(memory_format=torch.contiguous_format),
        (torch.zeros(1, 1, 48, 48),),
        path,
        input_names=["image"],
        output_names=["features"],
        dynamic_axes={"image": {0: "N"}, "features": {0: "N"}},
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load(path)
    onnx.checker.check_model(model)
    print(f"{path}: {len(model.SerializeToString())} bytes, {sorted({n.op_type for n in model.graph.node})}")


if __name__ == "__main__":
    main()
