#!/usr/bin/env python3
"""Few-shot episodes as text, drawn like the peers' reference program draws them, so that graft runs the same ones.

usage: episodes.py DATA_DIR SHOTS [--ways 5] [--queries 10] [--episodes 600] [--seed 0] > episodes.txt
DATA_DIR: one folder per class. SHOTS: a number, or one per class of an episode, such as 20,20,1,1,1. A line per episode: "file:label ... | file:label ...", support then query; files by
index in the sorted list of all images, which lies in lines "# index path". Install: numpy
"""
import argparse, glob, os
import numpy as np

p = argparse.ArgumentParser()
p.add_argument("data")
p.add_argument("shots", type=lambda s: [int(n) for n in s.split(",")])
for name, default in dict(ways=5, queries=10, episodes=600, seed=0).items():
    p.add_argument("--" + name, type=int, default=default)
a = p.parse_args()

classes = sorted(c for c in os.listdir(a.data) if os.path.isdir(os.path.join(a.data, c)))
files = [(f, k) for k, c in enumerate(classes) for f in sorted(glob.glob(f"{a.data}/{c}/*")) if f.lower().endswith((".jpg", ".jpeg", ".png"))]
y = np.array([k for _, k in files])
for i, (f, _) in enumerate(files):
    print("#", i, os.path.relpath(f, a.data))
shots = a.shots if len(a.shots) > 1 else a.shots * a.ways
g = np.random.default_rng(a.seed)
for _ in range(a.episodes):
    support, query = [], []
    for k, c in enumerate(g.choice(len(classes), min(a.ways, len(classes)), False)):
        i = g.permutation(np.flatnonzero(y == c))[: shots[k] + a.queries]
        support += [f"{j}:{k}" for j in i[: shots[k]]]
        query += [f"{j}:{k}" for j in i[shots[k] :]]
    print(" ".join(support), "|", " ".join(query))
