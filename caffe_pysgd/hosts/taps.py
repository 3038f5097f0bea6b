"""What prototxts that version 0.1 injected name; they go on working."""

from caffe_pysgd.hosts.in_net.taps import Tap

__all__ = ["Tap"]
