#!/usr/bin/env python3
"""Episodes for the program `heads`, and scikit-learn's heads on them at the strengths that graft chose.

usage: heads.py embed ASSETS CACHE        writes CACHE/NAME.emb, as unknowns.py does; what is there is kept
       heads.py draw ASSETS CACHE [--episodes 600] [--seed 0]    writes CACHE/NAME.SHOTS.draws
       heads.py peers CACHE OUT [--only flowers] [--shots 1 5] [--heads ncm lda]    compares OUT, which `heads CACHE --out OUT` has filled;
           exit code 1 if a bar is missed
CACHE is not that of unknowns.py, whose programs read every .emb in it; .emb files of the same name are the same.
Install: numpy scikit-learn; for embed also onnxruntime onnx pillow scipy. A data set that is absent is skipped with one line.

Episodes: 5 classes, 10 queries of each, shots 1, 5, 10, 20, and 20,20,1,1,1. Where there are 3 classes (blood_cells), all of
them, and 20,20,1. Omniglot has 20 drawings of a class: to 10 shots.

| name | backbone | support and queries |
|---|---|---|
| flowers, hand_signs | MobileNetV2 | other photos |
| blood_cells | MobileNetV2 (boxes, cut out and stretched to the square) | other microscope images |
| omniglot | MobileNetV1 0.25, 128 x 128 (a photo backbone on `background_small`) | other drawers |
| spoken_digits | dscnn_l_mswc_fewshot | three speakers each, other ones |
| clinc150 | hashed n-grams | other sentences |

Peers, all on embeddings minus the mean of class means:

| graft | scikit-learn |
|---|---|
| ncm | NearestCentroid on unit vectors; the same head at one shot only, for more graft weighs how well a class is known:
        as device/heads/src/ncm.rs defines it, from NearestCentroid's centroids of the embeddings |
| ncm-euclidean | NearestCentroid; where shots are unequal, with the term for noise of device/heads/src/euclidean.rs
| ncm-trimmed | as ncm, of scipy's trim_mean(0.2)
| ridge | RidgeClassifier(alpha=kappa), samples weighted 1 / n_c |
| lda | LinearDiscriminantAnalysis("lsqr", shrinkage, priors equal), in the span of the samples at the shrinkage that means
        the same there; the first episode also in all D components at graft's own |
| logistic | LogisticRegression(C=classes / (kappa n), class_weight="balanced") in the span of the samples |
| knn | KNeighborsClassifier(k, metric="cosine"); its votes, and its neighbours with equal votes to the nearest |
| rp | RidgeClassifier as above on features that `projected` computes here from the definition |

Labels count as different only where the peer's two best scores are further apart than the tolerance on scores.
"""
import argparse, glob, json, os, sys, warnings
from xml.etree import ElementTree
import numpy as np
from unknowns import embed, photo, read, run, stored

SETS = ["flowers", "hand_signs", "blood_cells", "omniglot", "spoken_digits", "clinc150"]
SHOTS = [[1] * 5, [5] * 5, [10] * 5, [20] * 5, [20, 20, 1, 1, 1]]
# Head of graft and method of Peer.
ROWS = [("ncm", "nearest_centroid"), ("ncm", "ncm"), ("ncm-euclidean", "euclidean"), ("ncm-trimmed", "trimmed"), ("ridge", "ridge"), ("lda", "lda"), ("logistic", "logistic"),
        ("knn", "votes"), ("knn", "neighbours"), ("rp", "ridge")]
# Largest difference of scores, relative to the largest score of an episode: weights are f32, and softmax regression stops
# at a gradient of 1e-6 here and a loss there.
TOLERANCE = {"ncm": 1e-6, "ncm-euclidean": 1e-6, "ncm-trimmed": 1e-6, "ridge": 1e-5, "lda": 1e-5, "logistic": 2e-3,
             "knn": 1e-9, "rp": 1e-5}


def shots_of(labels):
    """Name and shots per class of each kind of episode; of fewer classes than 5 the first."""
    for shots in SHOTS:
        shots = shots[: len(set(labels) - {"_unknown"})]
        yield str(shots[0]) if len(set(shots)) == 1 else ",".join(map(str, shots)), shots


def omniglot(root):
    return sorted(glob.glob(root + "/background_small/*/*/*.png"))


def cells(root):
    """Image, kind of cell and box [left, top, right, bottom] of each cell; two boxes of no size are left out."""
    for path in sorted(glob.glob(root + "/BCCD/Annotations/*.xml")):
        for cell in ElementTree.parse(path).iter("object"):
            box = [int(cell.find("bndbox").findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax")]
            if box[0] < box[2] and box[1] < box[3]:
                yield os.path.basename(path)[:-4], cell.findtext("name"), box


def groups(assets, name):
    """Who made each sample, or the image it is from; None where every sample is its own."""
    root = os.path.join(assets, "data", name)
    if name == "omniglot":
        return np.array([f[-6:-4] for f in omniglot(root)])
    if name == "spoken_digits":
        files = sorted(glob.glob(root + "/recordings/*.wav"))
        return np.array([os.path.basename(f).split("_")[1] for f in files])
    if name == "blood_cells":
        return np.array([image for image, _, _ in cells(root)])
    return None


def embed_omniglot(assets):
    from PIL import Image
    files = omniglot(os.path.join(assets, "data", "omniglot"))
    picture = lambda f: (np.asarray(Image.open(f).convert("RGB").resize((128, 128), 2), np.float32).transpose(2, 0, 1) - 128) / 128
    labels = ["/".join(f.split("/")[-3:-1]) for f in files]
    return run(assets, "mobilenet_v1_025_128_imagenet", map(picture, files)), labels


def embed_cells(assets):
    root = os.path.join(assets, "data", "blood_cells")
    photos = (photo(f"{root}/BCCD/JPEGImages/{image}.jpg", box) for image, _, box in cells(root))
    return run(assets, "mobilenet_v2_imagenet", photos), [kind for _, kind, _ in cells(root)]


def episode(labels, who, shots, g):
    """Support and query: index arrays."""
    classes = g.choice(sorted(set(labels) - {"_unknown"}), len(shots), False)
    if who is not None:
        people = g.permutation(sorted(set(who)))
        mine = np.isin(who, people[: len(people) // 2])
    support, query = [], []
    for c, n in zip(classes, shots):
        i = g.permutation(np.flatnonzero(labels == c))
        a, b = (i[:n], i[n : n + 10]) if who is None else (i[mine[i]][:n], i[~mine[i]][:10])
        assert len(a) == n
        support += list(a)
        query += list(b)
    return support, query


def read_draws(cache, name):
    return [[np.array(part.split(), int) for part in line.split("|")][:2] for line in open(f"{cache}/{name}.draws")]


def projected(x):
    """graft's projection of int8 [N, D], from its definition (device/heads/src/projection.rs); values are 0..127."""
    from scipy.linalg import hadamard
    mask, state, d = (1 << 64) - 1, int.from_bytes(b"graft rp", "big"), x.shape[1]
    block = 1 << (d - 1).bit_length()
    h, out, length = hadamard(block).astype(np.float32), [], np.floor(np.sqrt((x.astype(np.int64) ** 2).sum(1)))
    for _ in range(max(4096, block) // block):
        signs = []
        for _ in range(-(-d // 64)):
            state = (state + 0x9E3779B97F4A7C15) & mask
            z = state
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            z ^= z >> 31
            signs += [1 - 2 * (z >> p & 1) for p in range(64)]
        # Integers under 2^24 throughout: f32 is exact.
        v = (x.astype(np.float32) * np.array(signs[:d], np.float32)) @ h[:d]
        out.append(np.minimum(127, np.maximum(v, 0) * 40 // np.maximum(length, 1, dtype=np.float32)[:, None]).astype(np.int8))
    return np.concatenate(out, 1)


def unit(v):
    return v / np.linalg.norm(v, axis=1, keepdims=True)


class Peer:
    """scikit-learn's heads on one episode; the scores of each, [query, C]."""

    def __init__(self, x, y, q):
        self.y, self.n, self.n_classes = y, np.bincount(y), y.max() + 1
        centre = np.mean([x[y == c].mean(0) for c in range(self.n_classes)], 0)
        self.x, self.q, self.d = x - centre, q - centre, x.shape[1]
        self.weights = 1 / self.n[y]
        self.trace = (self.weights * (self.x**2).sum(1)).sum()
        # Coordinates in the span of the samples: the same lengths and angles.
        u, s, vt = np.linalg.svd(self.x, full_matrices=False)
        vt = vt[s > 1e-9 * s[0]]
        self.z, self.zq = self.x @ vt.T, self.q @ vt.T

    def nearest_centroid(self, _):
        from sklearn.neighbors import NearestCentroid
        peer = NearestCentroid().fit(unit(self.x), self.y)
        return 1 - ((unit(self.q)[:, None] - peer.centroids_) ** 2).sum(2) / 2

    def centroids(self):
        """Class means of the centred embeddings, and the variance within classes."""
        from sklearn.neighbors import NearestCentroid
        means = NearestCentroid().fit(self.x, self.y).centroids_
        return means, ((self.x - means[self.y]) ** 2).sum() / max(1, self.n.sum() - self.n_classes)

    def euclidean(self, _):
        means, variance = self.centroids()
        distances = ((self.q[:, None] - means) ** 2).sum(2) - variance / self.n
        return ((self.q**2).sum(1, keepdims=True) - distances) / 2 / (self.trace / self.n_classes)

    def trimmed(self, _):
        from scipy.stats import trim_mean
        means = np.array([trim_mean(self.x[self.y == c], 0.2) for c in range(self.n_classes)])
        return self.cosines(means - means.mean(0), self.q - means.mean(0))

    def ncm(self, _):
        return self.cosines(self.centroids()[0], self.q)

    def cosines(self, means, q):
        variance, n, squared = self.centroids()[1], self.n, (means**2).sum(1)
        own = np.maximum(squared - variance / n, 0)
        signal = own.mean() + (n - 1) / (n + 1) * (own - own.mean())
        lengths = np.sqrt((signal + variance / n) / (signal + variance))
        return unit(q) @ (unit(means) * lengths[:, None]).T + (1 - signal / (signal + variance)) / 2

    def ridge(self, lambda_rel):
        from sklearn.linear_model import RidgeClassifier
        peer = RidgeClassifier(alpha=lambda_rel * self.trace / len(self.y)).fit(self.z, self.y, sample_weight=self.weights)
        return (1 + peer.decision_function(self.zq)) / 2

    def lda(self, shrinkage, full=False):
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        priors, odds = [1 / self.n_classes] * self.n_classes, shrinkage / (1 - shrinkage)
        if (self.n == 1).all():
            return None  # no covariance: graft takes the nearest mean, scikit-learn divides by zero
        if full:
            return LinearDiscriminantAnalysis("lsqr", shrinkage, priors).fit(self.x, self.y).decision_function(self.q)
        inner = odds * self.z.shape[1] / self.d
        inner = inner / (1 + inner)
        peer = LinearDiscriminantAnalysis("lsqr", inner, priors).fit(self.z, self.y)
        scores = peer.decision_function(self.zq) - np.log(1 / self.n_classes)
        return scores * (1 - inner) / (1 - shrinkage)

    def logistic(self, lambda_rel):
        from sklearn.linear_model import LogisticRegression
        kappa = lambda_rel * self.trace / len(self.y)
        peer = LogisticRegression(C=self.n_classes / (kappa * len(self.y)), class_weight="balanced", tol=1e-7, max_iter=20000)
        return peer.fit(self.z, self.y).decision_function(self.zq)

    def votes(self, k):
        from sklearn.neighbors import KNeighborsClassifier
        return KNeighborsClassifier(int(k), metric="cosine").fit(self.x, self.y).predict_proba(self.q)

    def neighbours(self, k):
        from sklearn.neighbors import KNeighborsClassifier
        peer = KNeighborsClassifier(len(self.x), metric="cosine").fit(self.x, self.y)
        distances, near = peer.kneighbors(self.q)
        of_class = self.y[near][:, :, None] == np.arange(self.n_classes)
        nearest = np.where(of_class, 2 - distances[:, :, None], 0).max(1) / 4  # (1 + cosine) / 4
        return (of_class[:, : int(k)].sum(1) + nearest) / k


def same_up_to_shift(a, b, kind):
    """Largest difference of scores of a query, relative to the largest score; discriminants and log odds are known up to
    what all classes share."""
    if kind in ("lda", "logistic"):
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return np.abs(a - b).max() / max(1, np.abs(b).max())


def compare(graft, peer, truth, row):
    """Balanced accuracies of graft and peer in percent, labels that differ, those not by ties, difference of scores."""
    a, b = graft.argmax(1), peer.argmax(1)
    accuracies = [100 * np.mean([(p[truth == c] == c).mean() for c in np.unique(truth)]) for p in (a, b)]
    top = np.sort(peer, 1)
    gap = (top[:, -1] - top[:, -2]) / max(1, np.abs(peer).max())
    hard = (a != b) & (gap > 2 * TOLERANCE[row[0]])
    return *accuracies, (a != b).sum(), hard.sum(), same_up_to_shift(graft, peer, row[0])


def peers(cache, out, only, shots, heads):
    missed, rows = 0, [row for row in ROWS if not heads or row[0] in heads]
    print(f"{'data':14} {'shots':>11} {'head':13} {'peer':18} {'graft':>6} {'peer':>6} {'differ':>7} {'not by ties':>12} {'scores':>9}")
    for name in SETS:
        if not os.path.exists(f"{cache}/{name}.emb") or only not in (None, name):
            continue
        x, labels = read(cache, name)
        features = projected(x)
        for shot, shots_each in shots_of(labels):
            if not os.path.exists(f"{out}/{name}.{shot}.json") or (shots and shot not in shots):
                continue
            with open(f"{out}/{name}.{shot}.json") as f:
                strengths = json.load(f)
            n_classes, n_episodes = len(shots_each), len(strengths["ncm"])
            graft = {h: np.fromfile(f"{out}/{name}.{shot}.{h}.f64", "<f8").reshape(n_episodes, -1, n_classes) for h in strengths}
            results = {row: [] for row in rows}
            for e, (support, query) in enumerate(read_draws(cache, f"{name}.{shot}")[:n_episodes]):
                classes, y = np.unique(labels[support], return_inverse=True)
                truth = np.searchsorted(classes, labels[query])
                plain, wide = (Peer(v[support].astype(float), y, v[query].astype(float)) for v in (x, features))
                for row in rows:
                    head, method = row
                    scores = getattr(wide if head == "rp" else plain, method)(strengths[head][e])
                    if scores is None:
                        continue
                    if head == "lda" and e == 0:
                        full = plain.lda(strengths[head][e], True)
                        assert same_up_to_shift(scores, full, "lda") < 1e-5, "span and components differ"
                    results[row].append(compare(graft[head][e], scores, truth, row))
            for (head, method), compared in results.items():
                if not compared:
                    continue
                mine, theirs = np.mean(compared, 0)[:2]
                differ, hard = np.sum(compared, 0)[2:4].astype(int)
                largest = np.max(compared, 0)[4]
                other = method == "nearest_centroid" and shot != "1"
                votes = method == "votes"  # of equal votes graft takes the nearest, scikit-learn the first
                bad = not other and (hard > 0 or (not votes and (largest > TOLERANCE[head] or abs(mine - theirs) > 0.2)))
                missed += bad
                print(f"{name:14} {shot:>11} {head:13} {method:18} {mine:6.2f} {theirs:6.2f} {differ:7d} {hard:12d}"
                      f" {'-' if other or votes else format(largest, '.1e'):>9}{'  another head' if other else ''}{'  MISSED' if bad else ''}", flush=True)
    return missed


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("do", choices=["embed", "draw", "peers"])
    p.add_argument("dirs", nargs=2)
    p.add_argument("--episodes", type=int, default=600)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only")
    p.add_argument("--shots", nargs="+")
    p.add_argument("--heads", nargs="+")
    a = p.parse_args()
    if a.do == "peers":
        warnings.filterwarnings("ignore", module="sklearn")  # spread within classes of one sample
        sys.exit(1 if peers(*a.dirs, a.only, a.shots, a.heads) else 0)
    assets, cache = a.dirs
    os.makedirs(cache, exist_ok=True)
    for name in SETS:
        path = f"{cache}/{name}"
        if not os.path.isdir(os.path.join(assets, "data", name)):
            print(f"skipped {name}: absent in {assets}/data")
        elif a.do == "embed" and not os.path.exists(path + ".emb"):
            own = dict(omniglot=embed_omniglot, blood_cells=embed_cells)
            x, labels = own[name](assets) if name in own else embed(assets, name)
            x = stored(np.asarray(x, float))
            with open(path + ".emb", "wb") as f:
                f.write(f"graft embeddings {len(x)} {x.shape[1]}\n".encode())
                f.write("".join(f"{label}\t{i}\n" for i, label in enumerate(labels)).encode())
                f.write(x.tobytes())
            print(name, *x.shape, len(set(labels)), "labels")
        elif a.do == "draw":
            _, labels = read(cache, name)
            who = groups(assets, name)
            for shot, shots in shots_of(labels):
                if name == "omniglot" and max(shots) > 10:
                    continue
                g = np.random.default_rng(a.seed)
                with open(f"{path}.{shot}.draws", "w") as f:
                    for _ in range(a.episodes):
                        f.write(" | ".join(" ".join(map(str, part)) for part in episode(labels, who, shots, g)) + " |\n")
