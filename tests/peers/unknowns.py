#!/usr/bin/env python3
"""Data for the programs `unknowns` and `mislabels`: embeddings of the asset data sets, and seeded draws from them.

usage: unknowns.py embed ASSETS CACHE          writes CACHE/NAME.emb; what is there is kept
       unknowns.py draw CACHE [--draws 200] [--seed 0] [--shots N]    writes CACHE/NAME.draws; N: 5 classes (flowers: 4)
           with N shots instead of the table's
       unknowns.py peers CACHE                 unknowns that scikit-learn's methods reject on the same draws
Install: numpy scikit-learn; for embed also onnxruntime pillow scipy. A data set that is absent is skipped with one line.

NAME.emb: a line "graft embeddings N D", a line "label<tab>session" per sample, then int8 [N, D]. Label "_unknown": of
no class. Stored as DESIGN.md says; inv_scale puts the 99.9th percentile at 127.

| name | backbone | session | draw: known classes, shots | unknown |
|---|---|---|---|---|
| flowers | MobileNetV2 | photo | 3 of 5, 20 | the other classes |
| hand_signs | MobileNetV2 | photo | 5 of 10, 20 | the other classes |
| arabic_words | dscnn_l_mswc_fewshot | recording | 6 of 12, 18 | the other words |
| spoken_digits | dscnn_l_mswc_fewshot | recording | 5 of 10, 20 | the other digits |
| clinc150 | signed hashes of words, word pairs, 3- to 5-letter pieces, D = 512 | sentence | 20 of 150, 10 | out of scope |

A draw takes its classes, shots and, per class, as many test samples as are left (at most 20) at random; recordings of
one speaker lie on both sides, because rejection is about classes and its promise holds for exchangeable samples only.
"""
import argparse, glob, json, os, re, wave, zlib
import numpy as np

#       known classes, shots, unknown samples asked per draw
DRAWS = dict(flowers=(3, 20, 60), hand_signs=(5, 20, 100), arabic_words=(6, 18, 100), spoken_digits=(5, 20, 100), clinc150=(20, 10, 200))


def stored(x):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.clip(np.rint(127 / np.percentile(np.abs(unit), 99.9) * unit), -127, 127).astype(np.int8)


def run(assets, model, inputs):
    import onnx, onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graph = onnx.load(os.path.join(assets, "models", model, "model.onnx"))
    del graph.graph.output[:]
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info("features"))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(["features"], {name: x[None]})[0] for x in inputs])


def photo(path, box=None):
    from PIL import Image
    pixels = np.asarray(Image.open(path).convert("RGB").resize((224, 224), 2, box), np.float32)
    return ((pixels - 127) / 127.5).transpose(2, 0, 1)


def mfcc(path):
    """1 s at 16 kHz to [1, 49, 10], the front end in the model's SOURCE.md."""
    from scipy.fft import dct
    from scipy.signal import resample_poly
    with wave.open(path) as w:
        samples = np.frombuffer(w.readframes(w.getnframes()), "<i2") / 32768
        samples = resample_poly(samples, 16000, w.getframerate())[:16000]
    rest = 16000 - len(samples)
    samples = np.pad(samples, (rest // 2, rest - rest // 2))
    mel = lambda f: 2595 * np.log10(1 + f / 700)
    points = 700 * (10 ** (np.linspace(0, mel(8000), 42) / 2595) - 1)
    bins = np.linspace(0, 8000, 321)[:, None]
    rise, fall = (bins - points[:-2]) / np.diff(points)[:-1], (points[2:] - bins) / np.diff(points)[1:]
    bank = np.maximum(0, np.minimum(rise, fall))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(640) / 640)
    frames = np.stack([samples[i * 320 : i * 320 + 640] * window for i in range(49)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    return dct(np.log(power @ bank + 1e-6), norm="ortho")[:, :10].astype(np.float32)[None]


def hashed(text, d=512):
    words = re.findall(r"[a-z0-9']+", text.lower())
    pieces = [f" {w} " for w in words]
    grams = words + [f"{a} {b}" for a, b in zip(words, words[1:])]
    grams += [p[j : j + n] for p in pieces for n in (3, 4, 5) for j in range(len(p) - n + 1)]
    x = np.zeros(d)
    for gram in grams:
        h = zlib.crc32(gram.encode())
        x[h % d] += 1 if h >> 31 else -1
    return x


def embed(assets, name):
    root = os.path.join(assets, "data", name)
    if name == "clinc150":
        with open(os.path.join(root, "data_small.json")) as f:
            sets = json.load(f)
        rows = [(text, intent) for part in ("train", "val", "test") for text, intent in sets[part]]
        rows += [(text, "_unknown") for part in ("oos_val", "oos_test") for text, _ in sets[part]]
        return np.stack([hashed(text) for text, _ in rows]), [label for _, label in rows]
    if name == "spoken_digits":
        files = sorted(glob.glob(root + "/recordings/*.wav"))
        labels = [os.path.basename(f).split("_")[0] for f in files]
    else:
        files = sorted(f for f in glob.glob(root + "/*/*") if f.lower().endswith((".jpg", ".jpeg", ".png", ".wav")))
        labels = [os.path.basename(os.path.dirname(f)) for f in files]
    if files and files[0].endswith(".wav"):
        return run(assets, "dscnn_l_mswc_fewshot", map(mfcc, files)), labels
    return run(assets, "mobilenet_v2_imagenet", map(photo, files)), labels


def read(cache, name):
    with open(f"{cache}/{name}.emb", "rb") as f:
        n, d = map(int, f.readline().split()[2:])
        labels = np.array([f.readline().decode().split("\t")[0] for _ in range(n)])
        return np.frombuffer(f.read(), np.int8).reshape(n, d), labels


def draw(labels, known, shots, n_unknown, g):
    """Support, known test samples, unknown ones: index arrays."""
    classes = sorted(set(labels) - {"_unknown"})
    mine = g.choice(classes, known, False)
    support, test = [], []
    for c in mine:
        i = g.permutation(np.flatnonzero(labels == c))
        support += list(i[:shots])
        test += list(i[shots : shots + 20])
    outside = labels == "_unknown" if "_unknown" in labels else ~np.isin(labels, mine)
    return support, test, g.permutation(np.flatnonzero(outside))[:n_unknown]


def read_draws(cache, name):
    for line in open(f"{cache}/{name}.draws"):
        yield [np.array(part.split(), int) for part in line.split("|")]


def peers(x, labels, draws):
    """Share of unknowns under the threshold that keeps 95 % of the known test samples, per method; and at the threshold
    that keeps 95 % of held-out support samples (two folds), with the false rejects that it costs."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neighbors import NearestNeighbors

    def nearest(a, y, b):
        return -NearestNeighbors(n_neighbors=1).fit(a).kneighbors(b)[0][:, 0]

    def softmax(a, y, b):
        return LogisticRegression(max_iter=2000).fit(a, y).predict_proba(b).max(1)

    unit = x / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    scale = np.linalg.norm(unit - unit.mean(0), axis=1).mean()
    results = {"nearest": [], "softmax": []}
    for support, test, unknown in draws:
        a, y = unit[support], labels[support]
        for method in (nearest, softmax):
            at = (lambda v: v) if method is nearest else (lambda v: (v - a.mean(0)) / scale)
            known, others = method(at(a), y, at(unit[test])), method(at(a), y, at(unit[unknown]))
            held = np.zeros(len(a))
            for fit, out in StratifiedKFold(5, shuffle=True, random_state=0).split(a, y):
                held[out] = method(at(a[fit]), y[fit], at(a[out]))
            k = max(int(np.floor(0.05 * (len(a) + 1))), 1)
            matched, own = np.quantile(known, 0.05), np.sort(held)[k - 1]
            results[method.__name__].append([(others < matched).mean(), (others <= own).mean(), (known <= own).mean()])
    return {name: 100 * np.mean(rows, 0) for name, rows in results.items()}


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("do", choices=["embed", "draw", "peers"])
    p.add_argument("dirs", nargs="+")
    p.add_argument("--draws", type=int, default=200)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--shots", type=int)
    a = p.parse_args()
    cache = a.dirs[-1]
    os.makedirs(cache, exist_ok=True)
    for name, (known, shots, n_unknown) in DRAWS.items():
        path = f"{cache}/{name}"
        if a.shots:
            known, shots = 4 if name == "flowers" else 5, a.shots
        if a.do == "embed":
            if os.path.exists(path + ".emb"):
                continue
            if not os.path.isdir(os.path.join(a.dirs[0], "data", name)):
                print(f"skipped {name}: absent in {a.dirs[0]}/data")
                continue
            x, labels = embed(a.dirs[0], name)
            x = stored(np.asarray(x, float))
            with open(path + ".emb", "wb") as f:
                f.write(f"graft embeddings {len(x)} {x.shape[1]}\n".encode())
                f.write("".join(f"{label}\t{i}\n" for i, label in enumerate(labels)).encode())
                f.write(x.tobytes())
            print(name, *x.shape, len(set(labels)), "labels")
        elif not os.path.exists(path + ".emb"):
            print(f"skipped {name}: {path}.emb is absent")
        elif a.do == "draw":
            _, labels = read(cache, name)
            g = np.random.default_rng(a.seed)
            with open(path + ".draws", "w") as f:
                for _ in range(a.draws):
                    f.write(" | ".join(" ".join(map(str, part)) for part in draw(labels, known, shots, n_unknown, g)) + "\n")
        else:
            x, labels = read(cache, name)
            for method, (matched, own, cost) in peers(x, labels, read_draws(cache, name)).items():
                print(f"{name:14} {method:8} unknowns rejected: {matched:.1f} % where 5 % of known test samples are;"
                      f" own threshold {own:.1f} % at {cost:.1f} % false rejects", flush=True)
