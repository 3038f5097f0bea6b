"""What is easily got wrong, as data: one entry is one fault with its switches, words and fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Tuple

Switches = Dict[str, Any]
"""Fields of :class:`~.hand_written.Loop` and what the fault sets them to."""


@dataclass(frozen=True, eq=False)
class Fault:
    """One way in which a loop differs from Caffe's.

    Attributes:
        key: its short name.
        title: what is wrong, in words.
        fix: the line of code that fixes it.
        variants: the switches; where people write it in several ways, several.
        needs: what a configuration must have for the fault to make a difference.
        types: the solver types that it is possible with; all if empty.
        regularization: the regularization_type that it is possible with; any if empty.
    """

    key: str
    title: str
    fix: str
    variants: Tuple[Switches, ...] = ()
    needs: Tuple[str, ...] = ()
    types: Tuple[str, ...] = ()
    regularization: str = ""

    def possible(self, solver_type: str, regularization: str) -> bool:
        """Return whether a loop for such a solver can have this fault."""
        return (not self.types or solver_type in self.types) and (
            self.regularization in ("", regularization)
        )


# What the update does to right gradients. Of two that explain the same, the earlier is named first.
UPDATE_FAULTS = (
    Fault(
        "wrong_sign", "the update is added, not subtracted",
        "blob.data[...] -= update",
        ({"sign": 1},),
    ),
    Fault(
        "applied_twice", "the update is applied twice in an iteration",
        "blob.data[...] -= update  # once an iteration",
        ({"applied": "twice"}, {"applied": "all twice"}),
    ),
    Fault(
        "lr_mult_ignored", "lr_mult is ignored",
        "local_rate = rate * lr_mult  # the parameter's, from param { lr_mult } in the net file",
        ({"lr_mult": False},),
        ("an lr_mult other than 1",),
    ),
    Fault(
        "momentum_missing", "the momentum is missing",
        "v = momentum * v + local_rate * diff; blob.data[...] -= v",
        ({"momentum": "none"},),
        ("a momentum",),
    ),
    Fault(
        "history_reset", "the history is reset at every iteration",
        "v = [np.zeros_like(blob.data) for blob in blobs]  # once, before the first iteration",
        ({"history": "reset"},),
        ("a second iteration",),
    ),
    Fault(
        "history_shared", "the history is shared between parameters",
        "v[name, index] = momentum * v[name, index] + local_rate * diff  # one for each parameter",
        ({"history": "shared"}, {"history": "by shape"}, {"history": "by index"}),
        ("a momentum", "a second iteration"),
    ),
    Fault(
        "rate_outside", "the rate is outside of the history",
        "v = momentum * v + local_rate * diff; blob.data[...] -= v  # not -= local_rate * v",
        ({"rate_place": "outside"},),
        ("a momentum", "a rate that changes"),
        ("SGD", "Nesterov"),
    ),
    Fault(
        "momentum_damped", "the gradient is scaled by 1 - momentum",
        "v = momentum * v + local_rate * diff  # no (1 - momentum)",
        ({"momentum": "damped"},),
        ("a momentum",),
        ("SGD", "Nesterov"),
    ),
    Fault(
        "nesterov", "the momentum is Nesterov's, the solver's is plain",
        "blob.data[...] -= v  # type \"SGD\"; not local_rate * diff + momentum * v",
        ({"rule": "Nesterov"},),
        ("a momentum",),
        ("SGD",),
    ),
    Fault(
        "plain", "the momentum is plain, the solver's is Nesterov's",
        "blob.data[...] -= (1 + momentum) * v - momentum * v_before",
        ({"rule": "SGD"},),
        ("a momentum",),
        ("Nesterov",),
    ),
    Fault(
        "rate_fixed", "the rate stays at base_lr, whatever the policy says",
        "rate = policy(iteration)  # of lr_policy, at every iteration",
        ({"rate": "fixed"},),
        ("a rate that changes",),
    ),
    Fault(
        "rate_early", "the policy's rate is one iteration early: it is that of the next",
        "rate = policy(iteration)  # the first iteration is 0",
        ({"rate": "next"},),
        ("a rate that changes",),
    ),
    Fault(
        "rate_late", "the policy's rate is one iteration late: it is that of the one before",
        "rate = policy(iteration)  # the first iteration is 0",
        ({"rate": "previous"}, {"rate": "before"}),
        ("a rate that changes",),
    ),
    Fault(
        "decay_missing", "the weight decay is missing",
        "diff += weight_decay * decay_mult * blob.data  # before the momentum",
        ({"decay": "none"},),
        ("a weight_decay",),
    ),
    Fault(
        "decay_mult_ignored", "decay_mult is ignored",
        "local_decay = weight_decay * decay_mult  # the parameter's, from the net file",
        ({"decay_mult": "ignored"},),
        ("a weight_decay", "a decay_mult other than 1"),
    ),
    Fault(
        "decay_on_biases", "the weight decay is on biases, too, whose decay_mult is 0",
        "local_decay = weight_decay * decay_mult  # 0 for this net's biases",
        ({"decay_mult": "biases too"},),
        ("a weight_decay", "biases with decay_mult 0", "a second iteration"),
    ),
    Fault(
        "decay_not_on_biases", "the weight decay leaves biases out, unlike Caffe's",
        "diff += weight_decay * decay_mult * blob.data  # biases, too; decay_mult decides",
        ({"decay_mult": "not biases"},),
        ("a weight_decay", "biases with a decay_mult", "a second iteration"),
    ),
    Fault(
        "decay_decoupled", "the weight decay is decoupled: taken off the weights, past the history",
        "diff += weight_decay * decay_mult * blob.data  # before the momentum",
        ({"decay": "local rate"}, {"decay": "global rate"}, {"decay": "no rate"}),
        ("a weight_decay", "a momentum", "a second iteration"),
    ),
    Fault(
        "decay_subtracted", "the weight decay has the wrong sign",
        "diff += weight_decay * decay_mult * blob.data",
        ({"decay": "subtracted"},),
        ("a weight_decay",),
    ),
    Fault(
        "l1_for_l2", "the weight decay is L1, the solver's is L2",
        "diff += local_decay * blob.data  # not np.sign(blob.data)",
        ({"regularization": "L1"},),
        ("a weight_decay",),
        regularization="L2",
    ),
    Fault(
        "l2_for_l1", "the weight decay is L2, the solver's is L1",
        "diff += local_decay * np.sign(blob.data)  # regularization_type: \"L1\"",
        ({"regularization": "L2"},),
        ("a weight_decay",),
        regularization="L1",
    ),
    Fault(
        "iter_size_missing", "the gradients are not divided by iter_size",
        "diff /= iter_size  # after clipping, before the weight decay",
        ({"divisions": 0},),
        ("an iter_size above 1",),
    ),
    Fault(
        "iter_size_twice", "the gradients are divided by iter_size twice",
        "diff /= iter_size  # once",
        ({"divisions": 2},),
        ("an iter_size above 1",),
    ),
    Fault(
        "clip_missing", "the gradients are not clipped",
        "diff *= min(1, clip_gradients / l2norm)  # first of all; l2norm over all parameters",
        ({"clip": "none"},),
        ("gradients longer than clip_gradients",),
    ),
    Fault(
        "clip_after_decay", "the gradients are clipped after the weight decay",
        "diff *= min(1, clip_gradients / l2norm)  # first, then / iter_size, then the decay",
        ({"clip": "after decay"},),
        ("gradients longer than clip_gradients", "a weight_decay"),
    ),
    Fault(
        "clip_after_iter_size", "the gradients are clipped after the division by iter_size",
        "diff *= min(1, clip_gradients / l2norm)  # first, then / iter_size",
        ({"clip": "after iter_size"},),
        ("gradients longer than clip_gradients", "an iter_size above 1"),
    ),
    Fault(
        "clip_each", "each parameter is clipped by its own norm",
        "l2norm = np.sqrt(sum((blob.diff ** 2).sum() for blob in blobs))  # of all together",
        ({"clip": "each"},),
        ("gradients longer than clip_gradients",),
    ),
    Fault(
        "diff_scaled_twice", "the diff is scaled by the rate in place, and then again",
        "blob.diff[...] *= local_rate; blob.data[...] -= blob.diff  # the rate once",
        ({"scaled_again": "local rate"}, {"scaled_again": "global rate"}),
    ),
    Fault(
        "no_bias_correction", "Adam's bias correction is missing",
        "rate *= np.sqrt(1 - momentum2 ** t) / (1 - momentum ** t)  # t = iteration + 1",
        ({"correction": False},),
        (),
        ("Adam",),
    ),
)  # fmt: skip

# What was seen of the gradients, or of the weights as a whole.
NOT_CLEARED = Fault(
    "diffs_not_cleared", "the diffs are not cleared before backward, which adds to them",
    "net.clear_param_diffs()  # before the first forward() and backward() of an iteration",
)  # fmt: skip
CLEARED_BETWEEN = Fault(
    "diffs_cleared_between", "the diffs are cleared between the passes of iter_size",
    "net.clear_param_diffs()  # once an iteration, before the first of the iter_size passes",
)  # fmt: skip
OTHER_PASSES = Fault(
    "other_passes", "backward does not run iter_size times an iteration",
    "for _ in range(iter_size): net.forward(); net.backward()",
)  # fmt: skip
OTHER_WEIGHTS = Fault(
    "other_weights", "the weights are others at the first forward already",
    "caffe.set_random_seed(...) or copy_from(...) before  # the same first weights for both",
)  # fmt: skip
MOVED_WEIGHTS = Fault(
    "moved_weights", "the weights are changed between the update and the next forward",
    "forward and backward at the weights that the update left",
)  # fmt: skip
OTHER_BATCH = Fault(
    "other_batch", "the gradients are those of another batch",
    "net.forward()  # iter_size times an iteration, and nowhere else: each call takes a batch",
)  # fmt: skip
RANDOM = Fault(
    "random_layer", "the gradients differ though weights and batch are the same: random numbers",
    "leave the random generator alone: no caffe.set_random_seed, no extra forward",
)  # fmt: skip
OTHER_GRADIENTS = Fault(
    "other_gradients", "the gradients differ though weights and batch are the same",
    "net.forward(); net.backward()  # the whole net, and nothing in between",
)  # fmt: skip
NOTHING_UPDATED = Fault(
    "nothing_updated", "the step changes no weight",
    "blob.data[...] -= update  # into the array; blob.data = ... or w = w - update do not reach it",
)  # fmt: skip
ONLY_SOME = Fault(
    "only_some_updated", "only some of the parameters are updated",
    "for blobs in net.params.values(): for blob in blobs: ...  # biases, too",
)  # fmt: skip
NO_BACKWARD = Fault(
    "no_backward", "the step runs no backward on the net of its solver",
    "net.forward(); net.backward()  # of the solver that the step was given",
)  # fmt: skip
