"""A network in ONNX Runtime or LiteRT, run when asked: the peers of `tests/src/bin/speed.rs`, which starts this.

    speed.py MODEL.onnx|MODEL.tflite THREADS

Prints the milliseconds from the file to the first result (without importing the package), then for every line on standard
input those of one inference. Needs numpy and onnxruntime or ai-edge-litert from PyPI.
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


def milliseconds(work):
    start = time.perf_counter()
    result = work()
    return 1e3 * (time.perf_counter() - start), result


def main():
    path, n_threads = sys.argv[1], int(sys.argv[2])
    load = (litert if path.endswith(".tflite") else onnx_runtime)(path, n_threads)
    loading, run = milliseconds(load)
    print(loading + milliseconds(run)[0], flush=True)
    for _ in sys.stdin:
        print(milliseconds(run)[0], flush=True)


if __name__ == "__main__":
    main()
