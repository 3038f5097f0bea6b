"""An update rule of one's own, named in lenet_sign.yaml as my_rules:Signum."""

import numpy as np

import caffe_pysgd


class Signum(caffe_pysgd.UpdateRule):
    """Bernstein et al., "signSGD", ICML 2018: every weight moves by the same amount."""

    slots = ("momentum",)

    def update(self, p):
        momentum = p.state["momentum"]
        momentum += (1 - p.h.momentum) * (p.gradient - momentum)
        return p.rate * np.sign(momentum)
