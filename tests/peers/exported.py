#!/usr/bin/env python3
"""Exported heads in ONNX Runtime, numpy and safetensors' format against what graft says, see tests/src/bin/exported.rs.

usage: exported.py CACHE OUT
Labels must be equal but where the two best scores lie within 1e-5; the largest difference of a score is printed. The
numbers in .npz and .safetensors must be the same and give the same scores. Exit code 1 if not. Install: numpy onnx
onnxruntime
"""
import glob, json, os, sys
import numpy as np
import onnx, onnxruntime

cache, out = sys.argv[1:3]


def embeddings(name):
    with open(f"{cache}/{name}.emb", "rb") as f:
        n, d = map(int, f.readline().split()[2:])
        for _ in range(n):
            f.readline()
        return np.frombuffer(f.read(), np.int8).reshape(n, d)


def safetensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    types = {"F32": "<f4", "F64": "<f8"}
    meta = header.pop("__metadata__")
    return meta, {k: np.frombuffer(data[slice(*v["data_offsets"])], types[v["dtype"]]).reshape(v["shape"]) for k, v in header.items()}


n_samples = n_ties = n_wrong = 0
largest = 0.0
paths = sorted(glob.glob(out + "/*.onnx"))
for path in paths:
    stem = path[: -len(".onnx")]
    x = embeddings(os.path.basename(stem).rsplit("-", 2)[0])
    rows = [line.rstrip("\n").split("\t") for line in open(stem + ".txt")]
    x = x[[int(row[0]) for row in rows]]
    expected = np.array([row[2].split() for row in rows], float)

    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    label, scores = session.run(["label", "scores"], {"embedding": x})
    best = np.sort(expected, 1)
    tie = best[:, -1] - best[:, -2] < 1e-5
    differs = np.array([labels[i] != row[1] for i, row in zip(label, rows)])
    n_samples += len(rows)
    n_ties += (differs & tie).sum()
    n_wrong += (differs & ~tie).sum()
    largest = max(largest, np.abs(scores - expected).max())

    meta, tensors = safetensors(stem + ".safetensors")
    arrays = np.load(stem + ".npz")
    assert json.loads(meta["labels"]) == labels == arrays["labels"].tolist(), stem
    assert str(arrays["head"]) == meta["head"] and meta["formula"] == str(arrays["formula"]), stem
    for name, tensor in tensors.items():
        assert tensor.dtype == arrays[name].dtype and np.array_equal(tensor, arrays[name]), (stem, name)
    q = x.astype(float)
    if "centre" in tensors:
        q = q - tensors["centre"]
        q /= np.linalg.norm(q, axis=1, keepdims=True)
    assert np.abs(q @ tensors["matrix"].astype(float).T + tensors["offsets"] - expected).max() < 1e-9, stem

# An empty embedding, which no board stores, gives numbers all the same.
for path in paths[:1]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    zeros = np.zeros((1, session.get_inputs()[0].shape[1]), np.int8)
    assert np.isfinite(session.run(["scores"], {"embedding": zeros})[0]).all()

print(f"{len(paths)} heads, {n_samples} samples: {n_wrong} labels differ, {n_ties} more on ties within 1e-5; "
      f"largest difference of a score {largest:.1e}")
sys.exit(bool(n_wrong) or not paths)
