"""Omniglot's `background_small` through `strokes`, and its one-shot runs."""

import os

import numpy as np
from PIL import Image

from strokes import strokes


def background(folder, alphabets=None, size=64):
    """`pictures [n, size, size]` u8, `label [n]`, `names` [(alphabet, character)]."""
    pictures, labels, names = [], [], []
    for alphabet in sorted(os.listdir(folder)):
        if alphabets is not None and alphabet not in alphabets:
            continue
        for character in sorted(os.listdir(f"{folder}/{alphabet}")):
            for file in sorted(os.listdir(f"{folder}/{alphabet}/{character}")):
                pictures.append(read(f"{folder}/{alphabet}/{character}/{file}", size))
                labels.append(len(names))
            names.append((alphabet, character))
    return np.stack(pictures), np.array(labels), names


def runs(folder):
    """Yields (support `[20, 48, 48]`, query `[20, 48, 48]`, answer `[20]`: index of the support for each query)."""
    for run in sorted(os.listdir(folder)):
        with open(f"{folder}/{run}/class_labels.txt", encoding="ascii") as file:
            pairs = [line.split() for line in file if line.strip()]
        support_files = sorted({support for _, support in pairs})
        support = np.stack([read(f"{folder}/{f}", 48) for f in support_files])
        query = np.stack([read(f"{folder}/{f}", 48) for f, _ in pairs])
        yield support, query, np.array([support_files.index(s) for _, s in pairs])


def read(path, size):
    with Image.open(path) as image:
        return strokes(np.asarray(image.convert("L")), size)
