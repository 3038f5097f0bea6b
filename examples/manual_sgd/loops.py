"""The loops: Caffe's SGD by hand, in pycaffe, with every mistake that is easily made.

Each goes on for ever; a `yield` ends an iteration.
"""

import numpy as np

from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import NATIVE_RULES, HyperParameters, Parameter, Updater, make_kernels

LR, MOMENTUM = 0.01, 0.9


def learnable(net):
    """Return each blob that learns with its lr_mult; LeNet says 1 for weights, 2 for biases."""
    return [pair for blobs in net.params.values() for pair in zip(blobs, (1, 2))]


def compute_diffs(net):
    net.clear_param_diffs()
    net.forward()
    net.backward()


def not_cleared_scaled(net):
    """The thread's first loop. backward() adds to diff, and there the last update still is."""
    while True:
        net.forward()
        net.backward()
        for blob, lr_mult in learnable(net):
            blob.diff[...] *= LR * lr_mult
            blob.data[...] -= blob.diff
        yield


def not_cleared(net):
    """The same, but diff is not overwritten: the gradients of all iterations add up in it."""
    while True:
        net.forward()
        net.backward()
        for blob, lr_mult in learnable(net):
            blob.data[...] -= LR * lr_mult * blob.diff
        yield


def lr_mult_ignored(net):
    while True:
        compute_diffs(net)
        for blob, _ in learnable(net):
            blob.data[...] -= LR * blob.diff
        yield


def plain(net):
    """No mistake, and no momentum."""
    while True:
        compute_diffs(net)
        for blob, lr_mult in learnable(net):
            blob.data[...] -= LR * lr_mult * blob.diff
        yield


def textbook(net, dtype=np.float32):
    """Momentum by the formula of every textbook, and of Caffe's own tutorial."""
    v = [np.zeros(blob.data.shape, dtype) for blob, _ in learnable(net)]
    while True:
        compute_diffs(net)
        for k, (blob, lr_mult) in enumerate(learnable(net)):
            v[k] = MOMENTUM * v[k] - LR * lr_mult * blob.diff.astype(dtype)
            blob.data[...] += v[k]
        yield


def textbook_float64(net):
    return textbook(net, np.float64)


def rounded_once(net):
    """The textbook's formula again. This time lr * diff is not rounded before it is added."""
    v = [np.zeros_like(blob.data) for blob, _ in learnable(net)]
    while True:
        compute_diffs(net)
        for k, (blob, lr_mult) in enumerate(learnable(net)):
            lr_diff = float(np.float32(LR * lr_mult)) * blob.diff.astype(np.float64)  # exact
            v[k] = np.float32(np.float32(MOMENTUM) * v[k] - lr_diff)
            blob.data[...] += v[k]
        yield


def caffe_pysgd(net):
    """Caffe's own arithmetic, in Caffe's order."""
    parameters = [
        Parameter(str(k), blob.data.ravel(), blob.diff.ravel(), lr_mult)
        for k, (blob, lr_mult) in enumerate(learnable(net))
    ]
    settings = HyperParameters(base_lr=LR, momentum=MOMENTUM)
    kernels = make_kernels("native", pycaffe.library_path())
    updater = Updater(parameters, settings, NATIVE_RULES["SGD"](), kernels)
    iteration = 0
    while True:
        compute_diffs(net)
        updater.step(iteration)
        iteration += 1
        yield


LOOPS = {  # each with the momentum of the native training that it is compared with
    "diffs not cleared": (not_cleared, 0),
    "diffs not cleared, diff *= lr": (not_cleared_scaled, 0),
    "lr_mult ignored": (lr_mult_ignored, 0),
    "no mistake": (plain, 0),
    "history reset every time": (plain, MOMENTUM),
    "textbook": (textbook, MOMENTUM),
    "textbook, history in float64": (textbook_float64, MOMENTUM),
    "textbook, rounded once": (rounded_once, MOMENTUM),
    "caffe-pysgd": (caffe_pysgd, MOMENTUM),
}
