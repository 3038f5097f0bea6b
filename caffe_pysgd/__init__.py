"""Python owns the parameter update of Caffe: see it, prove it, change it."""

__version__ = "0.1.0"
