"""The solver's settings that decide the update, named, typed and defaulted as in caffe.proto."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Dict, Mapping, Tuple

import numpy as np

from caffe_pysgd.errors import SettingError, one_of

REGULARIZATION_TYPES = ("L2", "L1")
CLIP_TYPES = ("norm", "value", "adjustable")


@dataclass(frozen=True)
class HyperParameters:
    """What ``SolverParameter`` says about the update, and what it has no field for.

    Every real number is rounded to float32 on the way in, as protobuf stores it, so that the
    arithmetic never meets a Python float and computes in another type.

    Raises:
        SettingError: a value that Caffe would refuse, or NaN or infinity, with which Caffe would
            train to no purpose.
    """

    base_lr: np.float32 = np.float32(0)
    lr_policy: str = "fixed"
    gamma: np.float32 = np.float32(0)
    power: np.float32 = np.float32(0)
    stepsize: int = 0
    stepvalue: Tuple[int, ...] = ()
    max_iter: int = 0
    momentum: np.float32 = np.float32(0)
    momentum2: np.float32 = np.float32(0.999)
    delta: np.float32 = np.float32(1e-8)
    rms_decay: np.float32 = np.float32(0.99)
    weight_decay: np.float32 = np.float32(0)
    regularization_type: str = "L2"
    clip_gradients: np.float32 = np.float32(-1)
    iter_size: int = 1

    # From here on BVLC's caffe.proto has no field; a YAML gives them.
    clip_type: str = "norm"
    warmup_iter: int = 0
    warmup_start: np.float32 = np.float32(0)
    lr_min: np.float32 = np.float32(0)
    period_mult: np.float32 = np.float32(1)
    pct_start: np.float32 = np.float32(0.3)
    div_factor: np.float32 = np.float32(25)
    final_div_factor: np.float32 = np.float32(1e4)
    lr_table: Tuple[Tuple[int, float], ...] = ()
    plateau_winsize: Tuple[int, ...] = ()
    trust_coefficient: np.float32 = np.float32(0.001)

    def __post_init__(self) -> None:
        for field in fields(self):
            if isinstance(field.default, np.float32):
                value = np.float32(getattr(self, field.name))
                if not np.isfinite(value):
                    raise SettingError(field.name, value, "a finite number")
                object.__setattr__(self, field.name, value)
        for name in ("stepvalue", "plateau_winsize"):
            object.__setattr__(self, name, tuple(int(value) for value in getattr(self, name)))
        table = tuple(sorted((int(i), float(rate)) for i, rate in self.lr_table))
        object.__setattr__(self, "lr_table", table)
        if self.iter_size < 1:
            raise SettingError("iter_size", self.iter_size, "1 or more")
        if self.weight_decay != 0 and self.regularization_type not in REGULARIZATION_TYPES:
            raise SettingError(
                "regularization_type",
                self.regularization_type,
                one_of(REGULARIZATION_TYPES, self.regularization_type),
            )
        if self.clip_type not in CLIP_TYPES:
            raise SettingError("clip_type", self.clip_type, one_of(CLIP_TYPES, self.clip_type))

    @property
    def scales_gradients(self) -> bool:
        """Whether gradients are scaled before the rule sees them, in some updates or in all."""
        return bool(self.clip_gradients >= 0 or self.iter_size != 1)

    def following(self, common: HyperParameters, changes: Mapping[str, Any]) -> HyperParameters:
        """Return these with the changes to what they have in common with others.

        Raises:
            SettingError: a value that is never allowed.
        """
        names = [name for name in changes if getattr(self, name) == getattr(common, name)]
        return replace(self, **{name: changes[name] for name in names})

    @classmethod
    def beyond_caffe(cls) -> Tuple[str, ...]:
        """Return the names of the settings that caffe.proto has no field for."""
        names = [field.name for field in fields(cls)]
        return tuple(names[names.index("clip_type") :])

    def unknown_to_caffe(self) -> str:
        """Return the name of a setting here that no Caffe has, or an empty string."""
        for field in fields(self):
            if field.name in self.beyond_caffe() and getattr(self, field.name) != field.default:
                return field.name
        return ""

    def as_plain(self) -> Dict[str, object]:
        """Return the settings as plain Python values that read back to the same bits.

        A float32 is written with as few digits as name it: 0.01, not 0.009999999776482582.
        """
        plain: Dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.float32):
                value = float(str(value))
            plain[field.name] = list(value) if isinstance(value, tuple) else value
        return plain
