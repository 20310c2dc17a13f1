#!/usr/bin/env python3
"""A convolutional network as int8 .tflite (per channel, calibrated), for LiteRT beside graft in `tests/src/bin/speed.rs`.

usage: tflite.py MODEL.onnx PHOTOS OUT.tflite [--mean 127] [--std 127.5] [--n 60]
Photos are squashed to the model's size and fed as (v - mean) / std. The network ends at its first mean over the picture.
Prints the mean cosine between the .tflite's and the ONNX model's embeddings of 8 photos: the same network, or no comparison.
Install: numpy onnx onnxruntime pillow tensorflow-cpu.
"""
import argparse
import pathlib

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
from onnx import helper, numpy_helper
from PIL import Image

layers = tf.keras.layers


def same(kernel, stride, pads):
    """True if TensorFlow's SAME pads as `pads` do, on even sizes."""
    total = max(kernel - stride, 0)
    return list(pads) == [total // 2] * 2 + [total - total // 2] * 2


def padded(x, pads):
    return layers.ZeroPadding2D(((pads[0], pads[2]), (pads[1], pads[3])))(x) if any(pads) else x


def conv(x, weights, bias, attributes):
    kernel, stride = weights.shape[2], attributes.get("strides", [1, 1])[0]
    pads, groups = attributes.get("pads", [0] * 4), attributes.get("group", 1)
    padding = "same" if same(kernel, stride, pads) else "valid"
    if padding == "valid":
        x = padded(x, pads)
    if groups == 1:
        layer, order = layers.Conv2D(weights.shape[0], kernel, stride, padding), (2, 3, 1, 0)
    else:
        assert groups == weights.shape[0], "grouped convolutions are not translated"
        layer, order = layers.DepthwiseConv2D(kernel, stride, padding), (2, 3, 0, 1)
    y = layer(x)
    layer.set_weights([weights.transpose(order), bias])
    return y


def keras(model):
    """The network up to its first mean, and the ONNX name of that tensor."""
    graph = model.graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    shape = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    image = tf.keras.Input((shape[2], shape[3], shape[1]), batch_size=1)
    values = {graph.input[0].name: image}
    for node in graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        inputs = [values.get(name) for name in node.input]
        match node.op_type:
            case "Constant":
                constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
                continue
            case "Conv":
                weights = constants[node.input[1]]
                bias = constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(weights), np.float32)
                y = conv(inputs[0], weights, bias, attributes)
            case "Relu":
                y = layers.ReLU()(inputs[0])
            case "Clip":
                y = layers.ReLU(6.0)(inputs[0])
            case "Add":
                y = layers.Add()(inputs)
            case "Concat":
                y = layers.Concatenate()(inputs)
            case "MaxPool":
                x = padded(inputs[0], attributes.get("pads", [0] * 4))
                y = layers.MaxPool2D(attributes["kernel_shape"][0], attributes["strides"][0], "valid")(x)
            case "GlobalAveragePool" | "ReduceMean":
                return tf.keras.Model(image, layers.GlobalAveragePooling2D()(inputs[0])), node.output[0]
            case other:
                raise SystemExit(f"{other} is not translated")
        values[node.output[0]] = y
    raise SystemExit("no mean over the picture was found")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("photos", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--mean", type=float, default=127.0)
    parser.add_argument("--std", type=float, default=127.5)
    parser.add_argument("--n", type=int, default=60)
    args = parser.parse_args()
    model = onnx.load(args.model)
    network, cut = keras(model)
    size = network.input_shape[1:3]

    def photo(path):
        pixels = Image.open(path).convert("RGB").resize(size[::-1], Image.BILINEAR)
        return ((np.asarray(pixels, np.float32) - args.mean) / args.std)[None]

    photos = [photo(p) for p in sorted(args.photos.rglob("*")) if p.suffix in (".jpg", ".jpeg", ".png")][: args.n]
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x] for x in photos)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    args.out.write_bytes(converter.convert())

    model.graph.output.extend([helper.make_empty_tensor_value_info(cut)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    interpreter = tf.lite.Interpreter(str(args.out))
    interpreter.allocate_tensors()
    (into,), (out_of,) = interpreter.get_input_details(), interpreter.get_output_details()
    cosines = []
    for x in photos[:8]:
        (scale, zero), (out_scale, out_zero) = into["quantization"], out_of["quantization"]
        interpreter.set_tensor(into["index"], np.clip(np.round(x / scale) + zero, -128, 127).astype(np.int8))
        interpreter.invoke()
        ours = (interpreter.get_tensor(out_of["index"]).astype(np.float64).ravel() - out_zero) * out_scale
        theirs = session.run([cut], {session.get_inputs()[0].name: x.transpose(0, 3, 1, 2)})[0].ravel()
        cosines.append(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))
    print(f"{args.out}: cosine {np.mean(cosines):.4f} to the ONNX model")


main()
