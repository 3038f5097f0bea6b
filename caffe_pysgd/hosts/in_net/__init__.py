"""The in-net host: Python layers through which Python owns the update of ``caffe train``.

An injected prototxt names this module and a class in it. They are imported when Caffe asks for
them, so that who only writes such a prototxt need not load Caffe.
"""

from __future__ import annotations

from typing import Any

_LAYERS = ("Hook", "Parameters", "Seal")


def __getattr__(name: str) -> Any:
    if name in _LAYERS:
        from caffe_pysgd.hosts.in_net import layers

        return getattr(layers, name)
    if name == "Sender":
        from caffe_pysgd.hosts.in_net.sender import Sender

        return Sender
    if name == "Tap":
        from caffe_pysgd.hosts.in_net.taps import Tap

        return Tap
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
