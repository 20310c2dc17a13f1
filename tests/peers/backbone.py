#!/usr/bin/env python3
"""Backbone and head as `graft export --backbone` writes them, in ONNX Runtime, against the board that the head came from.

usage: backbone.py MODEL.onnx [MODEL.onnx ...] < PREDICTIONS
PREDICTIONS: what `graft predict -d DEVICE --json FILES` printed. Per model: share of equal labels, mean and smallest
cosine of embeddings to those of the first model. Exit code 1 where fewer than 98 % (int8) or 96 % (float) of the labels
are equal. Install: numpy pillow onnx onnxruntime
"""
import json, sys
import numpy as np
import onnx, onnxruntime
from PIL import Image, ImageOps

BARS = {"int8": 98.0, "float": 96.0}


def pixels(path, how):
    """A picture after the bundle's geometry; graft's resizing is defined as Pillow's."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert({"grey": "L"}.get(how["channels"], "RGB"))
    height, width = how["size"]
    resample = {"bilinear": 2, "bicubic": 3, "nearest": 0}[how["filter"]]
    geometry = how["geometry"]
    if geometry == "squash":
        x = np.asarray(picture.resize((width, height), resample))
    elif "shortest_crop" in geometry:
        side, w, h = geometry["shortest_crop"], *picture.size
        w, h = (side, max(1, round(h * side / w))) if w <= h else (max(1, round(w * side / h)), side)
        x = np.asarray(picture.resize((w, h), resample))
        top, left = (h - height) // 2, (w - width) // 2
        x = x[top : top + height, left : left + width]
    else:
        sys.exit(f"geometry {geometry} is not computed here")
    x = x.reshape(height, width, -1)
    return x[..., ::-1] if how["channels"] == "bgr" else x


predictions = [(p["input"], p["label"]) for p in map(json.loads, sys.stdin) if p["error"] is None]
first, missed = None, False
for path in sys.argv[1:]:
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    labels, how = json.loads(about["labels"]), json.loads(about["picture"])
    equal, embeddings = 0, []
    for file, label in predictions:
        found, embedding = session.run(["label", "embedding"], {"pixels": pixels(file, how)[None]})
        equal += labels[found[0]] == label
        embeddings.append(embedding[0] / np.linalg.norm(embedding[0].astype(float)))
    embeddings = np.array(embeddings)
    first = embeddings if first is None else first
    cosines = (embeddings * first).sum(1)
    share, bar = 100 * equal / len(predictions), BARS[about["precision"]]
    missed |= share < bar
    print(f"{path}: {about['precision']}, {equal} of {len(predictions)} labels equal ({share:.1f} %, bar {bar:.0f} %); "
          f"cosine to {sys.argv[1]}: mean {cosines.mean():.5f}, least {cosines.min():.5f}")
sys.exit(missed)
