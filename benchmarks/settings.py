"""The rules that are measured: their settings in Caffe's words and in PyTorch's."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple

BASE_LR, WEIGHT_DECAY = 1e-4, 5e-4


def arrays_touched(slots: int, leaves_anything: bool) -> int:
    """Return how many arrays an update must read and write, each counted once for each.

    It reads weights, gradient and state, and writes weights and state; and the gradient's place,
    unless what is left there does not matter.

    Args:
        slots: how many state slots the rule has.
        leaves_anything: whether it does not matter.
    """
    return (2 + slots) + (1 + slots) + (not leaves_anything)


class Settings(NamedTuple):
    """A rule.

    Attributes:
        rule: its name here.
        solver_type: that of the native solver which it is compared with.
        own: its hyper-parameters, beside the rate and the decay.
        slots: how many state slots it has.
        optimizer, options: the same in PyTorch.
    """

    rule: str
    solver_type: str
    own: Dict[str, float]
    slots: int
    optimizer: str
    options: Dict[str, Any]

    @property
    def is_native(self) -> bool:
        """Whether Caffe has this very rule."""
        return self.rule == self.solver_type.lower()

    @property
    def takes_powers(self) -> bool:
        """Whether it takes libm's powers, so that `exact: false` makes a difference."""
        return self.is_native and self.rule not in ("sgd", "nesterov")

    @property
    def hyperparameters(self) -> Dict[str, float]:
        """All hyper-parameters."""
        return {"base_lr": BASE_LR, "weight_decay": WEIGHT_DECAY, **self.own}


_ADAM: Dict[str, float] = {"momentum": 0.9, "momentum2": 0.999, "delta": 1e-8}
_BETAS = {"betas": (0.9, 0.999), "eps": 1e-8}

RULES: Dict[str, Settings] = {
    "SGD": Settings("sgd", "SGD", {"momentum": 0.9}, 1, "SGD", {"momentum": 0.9}),
    "Nesterov": Settings(
        "nesterov", "Nesterov", {"momentum": 0.9}, 1, "SGD", {"momentum": 0.9, "nesterov": True}
    ),
    "AdaGrad": Settings("adagrad", "AdaGrad", {"delta": 1e-8}, 1, "Adagrad", {"eps": 1e-8}),
    "RMSProp": Settings(
        "rmsprop",
        "RMSProp",
        {"rms_decay": 0.98, "delta": 1e-8},
        1,
        "RMSprop",
        {"alpha": 0.98, "eps": 1e-8},
    ),
    "AdaDelta": Settings(
        "adadelta",
        "AdaDelta",
        {"momentum": 0.95, "delta": 1e-6},
        2,
        "Adadelta",
        {"rho": 0.95, "eps": 1e-6},
    ),
    "Adam": Settings("adam", "Adam", _ADAM, 2, "Adam", _BETAS),
    "AdamW": Settings("adamw", "Adam", _ADAM, 2, "AdamW", _BETAS),
}
