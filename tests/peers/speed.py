"""A network in ONNX Runtime or LiteRT, run when asked: the peers of `tests/src/bin/speed.rs` and `footprint.rs`, which start
this.

    speed.py MODEL.onnx|MODEL.tflite THREADS [memory]

Prints the milliseconds from the file to the first result (without importing the package), then for every line on standard
input those of one inference. With `memory` instead the bytes of the resident set before loading, of its peak until 20
inferences are done, and how many of those that it grew by are pages of files. Needs numpy and onnxruntime or ai-edge-litert
from PyPI.
"""

import sys
import time

import numpy as np


def onnx_runtime(path, n_threads):
    import onnxruntime

    def load():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {i.name: sample([d if isinstance(d, int) else 1 for d in i.shape], TYPES[i.type]) for i in session.get_inputs()}
        return lambda: session.run(None, feed)

    return load


def litert(path, n_threads):
    from ai_edge_litert.interpreter import Interpreter

    def load():
        interpreter = Interpreter(model_path=path, num_threads=n_threads)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], sample(detail["shape"], detail["dtype"]))
        return interpreter.invoke

    return load


TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(int64)": np.int64}


def sample(shape, dtype):
    values = np.random.default_rng(0).uniform(0, 1, shape)
    return (values if dtype == np.float32 else values * 100).astype(dtype)


def resident(name):
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith(name))


def memory(load):
    # Importing the package has grown larger than it stayed.
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before, files = resident("VmRSS:"), resident("RssFile:")
    run = load()
    for _ in range(20):
        run()
    print(before, resident("VmHWM:"), resident("RssFile:") - files)


def milliseconds(work):
    start = time.perf_counter()
    result = work()
    return 1e3 * (time.perf_counter() - start), result


def main():
    path, n_threads = sys.argv[1], int(sys.argv[2])
    load = (litert if path.endswith(".tflite") else onnx_runtime)(path, n_threads)
    if sys.argv[3:] == ["memory"]:
        return memory(load)
    loading, run = milliseconds(load)
    print(loading + milliseconds(run)[0], flush=True)
    for _ in sys.stdin:
        print(milliseconds(run)[0], flush=True)


if __name__ == "__main__":
    main()
