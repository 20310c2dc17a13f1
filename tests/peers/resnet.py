#!/usr/bin/env python3
"""ResNet-18 or ResNet-50 at 224 x 224, cut at the embedding, with seeded random weights: for timing, which does not depend
on them. As torchvision exports them: batch norm folded, stride in the 3 x 3 of a bottleneck.

usage: resnet.py 18|50 OUT.onnx
Install: numpy onnx. Source: He et al. 2015, arXiv:1512.03385, table 1.
"""
import sys
import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto

BLOCKS = {18: [2, 2, 2, 2], 50: [3, 4, 6, 3]}


class Graph:
    def __init__(self):
        self.nodes, self.weights, self.random = [], [], np.random.default_rng(0)

    def add(self, op, inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def conv(self, x, n_in, n_out, kernel, stride=1, gain=1.0):
        scale = gain * np.sqrt(2 / (n_in * kernel**2))
        values = self.random.normal(0, scale, (n_out, n_in, kernel, kernel)), self.random.normal(0, 0.1, n_out)
        names = [f"{kind}{len(self.nodes)}" for kind in "wb"]
        self.weights += [numpy_helper.from_array(v.astype(np.float32), name) for v, name in zip(values, names)]
        return self.add("Conv", [x, *names], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4)

    def relu(self, x):
        return self.add("Relu", [x])


def resnet(depth):
    g = Graph()
    x = g.relu(g.conv("image", 3, 64, 7, 2))
    x = g.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    n_in, widen = 64, 4 if depth == 50 else 1
    for stage, n_blocks in enumerate(BLOCKS[depth]):
        width = 64 << stage
        for block in range(n_blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            n_out = width * widen
            if depth == 50:
                y = g.relu(g.conv(x, n_in, width, 1))
                y = g.relu(g.conv(y, width, width, 3, stride))
                y = g.conv(y, width, n_out, 1, gain=0.5)
            else:
                y = g.relu(g.conv(x, n_in, width, 3, stride))
                y = g.conv(y, width, n_out, 3, gain=0.5)
            same = stride == 1 and n_in == n_out
            x = g.relu(g.add("Add", [y, x if same else g.conv(x, n_in, n_out, 1, stride)]))
            n_in = n_out
    g.nodes.append(helper.make_node("Flatten", [g.add("GlobalAveragePool", [x])], ["embedding"]))
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(g.nodes, f"resnet{depth}", [value("image", [1, 3, 224, 224])], [value("embedding", [1, n_in])], g.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("18", "50"):
        sys.exit(__doc__)
    onnx.save(resnet(int(sys.argv[1])), sys.argv[2])
