"""Trajectories of other people's optimisers, for the rules that Caffe never got.

    python -m venv V && V/bin/pip install torch==2.13.0 optax && V/bin/python generate.py rules.npz

PyTorch and Optax need a newer NumPy than Caffe's, so they run here, in a virtual environment of
their own, and speak through the file: the start, the gradients, the settings, and the weights after
every step, for each rule in float32. Rates change every step, which tells the conventions apart.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Dict

import jax.numpy as jnp
import numpy as np
import optax
import torch

STEPS, COUNT = 25, 48
RATES = (0.02 * np.linspace(1, 0.2, STEPS)).astype(np.float32)
BETA1, BETA2, EPSILON, DECAY, TRUST = 0.9, 0.99, 1e-6, 0.01, 0.02


def gradients() -> np.ndarray:
    """Return gradients of several magnitudes, with zeros among them."""
    rng = np.random.default_rng(2016)
    scale = 10.0 ** rng.uniform(-3, 1, size=(1, COUNT))
    drawn = rng.standard_normal((STEPS, COUNT)) * scale
    drawn[rng.uniform(size=drawn.shape) < 0.05] = 0
    return drawn.astype(np.float32)


def start() -> np.ndarray:
    """Return the weights before the first step."""
    return np.random.default_rng(3959).standard_normal(COUNT).astype(np.float32)


def with_torch(make: Callable[[Any], Any]) -> np.ndarray:
    """Return the weights after every step of a ``torch.optim`` optimiser."""
    weights = torch.nn.Parameter(torch.tensor(start()))
    optimiser = make([weights])
    after = []
    for rate, gradient in zip(RATES, gradients()):
        for group in optimiser.param_groups:
            group["lr"] = float(rate)
        weights.grad = torch.tensor(gradient)
        optimiser.step()
        after.append(weights.detach().numpy().copy())
    return np.array(after)


def with_optax(make: Callable[[Any], Any]) -> np.ndarray:
    """Return the weights after every step of an Optax optimiser."""
    optimiser = make(lambda count: jnp.asarray(RATES)[count])
    weights = jnp.asarray(start())
    state = optimiser.init(weights)
    after = []
    for gradient in gradients():
        updates, state = optimiser.update(jnp.asarray(gradient), state, weights)
        weights = optax.apply_updates(weights, updates)
        after.append(np.asarray(weights))
    return np.array(after)


def sgdw(rate: Any) -> Any:
    """SGD with decoupled decay as a chain of Optax's stages, the rate inside the history."""
    return optax.chain(
        optax.scale_by_learning_rate(rate),
        optax.trace(decay=BETA1),
        _add_decay(rate),
    )


def _add_decay(rate: Any) -> Any:
    return optax.GradientTransformation(
        lambda weights: jnp.zeros([], jnp.int32),
        lambda updates, count, weights: (updates - rate(count) * DECAY * weights, count + 1),
    )


adam = dict(betas=(BETA1, BETA2), eps=EPSILON)
REFERENCES: Dict[str, Callable[[], np.ndarray]] = {
    "pytorch_sgd": lambda: with_torch(
        lambda p: torch.optim.SGD(p, lr=1, momentum=BETA1, weight_decay=DECAY)
    ),
    "sgdw": lambda: with_optax(sgdw),
    "adamw": lambda: with_torch(lambda p: torch.optim.AdamW(p, weight_decay=DECAY, **adam)),
    "amsgrad": lambda: with_torch(
        lambda p: torch.optim.Adam(p, weight_decay=DECAY, amsgrad=True, **adam)
    ),
    "nadam": lambda: with_optax(
        lambda rate: optax.chain(
            optax.add_decayed_weights(DECAY), optax.nadam(rate, BETA1, BETA2, EPSILON)
        )
    ),
    "adamax": lambda: with_torch(lambda p: torch.optim.Adamax(p, weight_decay=DECAY, **adam)),
    "lars": lambda: with_optax(
        lambda rate: optax.lars(rate, weight_decay=DECAY, trust_coefficient=TRUST, momentum=BETA1)
    ),
    "lamb": lambda: with_optax(
        lambda rate: optax.lamb(rate, BETA1, BETA2, eps=EPSILON, weight_decay=DECAY)
    ),
    "lion": lambda: with_optax(lambda rate: optax.lion(rate, BETA1, BETA2, weight_decay=DECAY)),
}


def one_cycle_rates() -> np.ndarray:
    """Return the rates of PyTorch's OneCycleLR over 40 steps."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=0.5, total_steps=40, cycle_momentum=False
    )
    rates = []
    for _ in range(40):
        rates.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    return np.array(rates)


def cosine_rates() -> np.ndarray:
    """Return the rates of PyTorch's CosineAnnealingWarmRestarts over 40 steps."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        optimiser, T_0=5, T_mult=2, eta_min=0.01
    )
    rates = []
    for _ in range(40):
        rates.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    return np.array(rates)


def main(path: str) -> None:
    """Write everything into one file."""
    np.savez_compressed(
        path,
        start=start(),
        gradients=gradients(),
        rates=RATES,
        settings=np.array([BETA1, BETA2, EPSILON, DECAY, TRUST]),
        one_cycle=one_cycle_rates(),
        cosine=cosine_rates(),
        versions=np.array([f"torch {torch.__version__}", f"optax {optax.__version__}"]),
        **{f"after_{name}": reference() for name, reference in REFERENCES.items()},
    )


if __name__ == "__main__":
    main(sys.argv[1])
