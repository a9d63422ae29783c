"""What every task's optimiser shares: which parameters decay, and how the learning rate moves."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import lightning as L
from lightning.pytorch import callbacks as lightning_callbacks
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from zoo.errors import UserError, invalid

# Lightning's callbacks that change, once the optimiser and its schedule are made, what those were made for: what each
# changes, and what to give in its place.
TOO_LATE = {
    lightning_callbacks.BatchSizeFinder: ("the batches", "data.batch_size"),
    lightning_callbacks.LearningRateFinder: ("the learning rate", "model.learning_rate"),
    lightning_callbacks.GradientAccumulationScheduler: ("how many steps there are", "trainer.accumulate_grad_batches"),
    lightning_callbacks.StochasticWeightAveraging: ("the learning rate", "the callback EMA"),
    lightning_callbacks.BaseFinetuning: ("what is trained", "the model's own options of what is trained"),
}


@dataclass(frozen=True)
class OptimizerOptions:
    """How AdamW goes, beside its peak learning rate.

    Args:
        weight_decay: Weight decay of matrices, at least 0; biases, norms and scales have none.
        warmup_steps: Steps of linear warm-up before the cosine to zero, at least 0.
        betas: AdamW's decay rates of its averages of the gradient and of its square.
        eps: AdamW's epsilon.
        on_divergence: What becomes of a training of which a loss, gradient or weight is not finite. ``stop``: it ends;
            ``restore``: it goes on from its newest good checkpoint with half the learning rates.
        max_restores: How often ``restore`` does so in one run, at least 1; then the training ends.
        rate_factor: Factor on all learning rates, above 0. ``restore`` halves it in the run's ``config.yaml``.
    """

    weight_decay: float = 0.01
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    on_divergence: Literal["stop", "restore"] = "stop"
    max_restores: int = 3
    rate_factor: float = 1.0

    def __post_init__(self) -> None:
        """Check what can be checked before anything is built.

        Raises:
            UserError: An option is out of its range.
        """
        for name in ("weight_decay", "warmup_steps", "eps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise invalid(f"model.optimizer.{name}", getattr(self, name), "give 0 or more")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise invalid("model.optimizer.betas", list(self.betas), "give two numbers, 0 to below 1")
        if self.on_divergence not in ("stop", "restore"):
            raise invalid("model.optimizer.on_divergence", self.on_divergence, "give stop or restore")
        if self.max_restores < 1:
            raise invalid("model.optimizer.max_restores", self.max_restores, "give 1 or more")
        if not 0 < self.rate_factor < math.inf:
            raise invalid("model.optimizer.rate_factor", self.rate_factor, "give a number above 0")

    def idle(self) -> dict[str, str]:
        """Name the fields that have no effect, and why."""
        return {"max_restores": "on_divergence is stop"} if self.on_divergence == "stop" else {}


def check_rate(name: str, rate: float | None) -> None:
    """Raise UserError where a learning rate is none; None: another's is taken."""
    if rate is not None and not 0 <= rate < math.inf:
        raise invalid(name, rate, "give 0 or more")


def parameter_groups(
    module: nn.Module, weight_decay: float, rates: Mapping[nn.Parameter, float] | None = None
) -> list[dict[str, Any]]:
    """Part a module's trainable parameters into decayed and undecayed ones, each exactly once.

    Matrices, tables and convolution kernels decay; biases, norms and scales, which have fewer than two dimensions, do
    not. That is the rule of open_clip and cn-clip.

    Args:
        module: Whose parameters; frozen ones are left out, shared ones come once.
        weight_decay: Of the decayed group, at least 0.
        rates: The learning rate, at least 0, of parameters that have one of their own.

    Returns:
        Groups for a torch optimiser; an empty one is left out.

    Raises:
        UserError: Nothing is trainable, or a number is negative.
    """
    rates = rates or {}
    if weight_decay < 0:
        raise invalid("weight_decay", weight_decay, "give 0 or more")
    if any(rate < 0 for rate in rates.values()):
        raise UserError(f"learning rates: {min(rates.values())} came; use 0 or more.")
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trainable:
        raise UserError(f"{type(module).__name__} has no trainable parameter. Unfreeze some.")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in trainable:
        key = (rates.get(parameter, -1.0), parameter.ndim < 2)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": 0.0 if undecayed else weight_decay} | ({"lr": rate} if rate >= 0 else {})
        for (rate, undecayed), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]


def layer_rates(layers: Sequence[Sequence[nn.Parameter]], rate: float, decay: float) -> dict[nn.Parameter, float]:
    """Give each layer of a backbone a learning rate: the last ``decay`` of the full one, each before it ``decay`` less.

    Source: ELECTRA (Clark et al. 2020, arXiv:2003.10555) and BEiT (Bao et al. 2021, arXiv:2106.08254).

    Args:
        layers: The parameters of each layer, from the input on.
        rate: Of what stands behind the backbone.
        decay: In (0, 1]; 1 gives all layers the full rate.
    """
    return {p: rate * decay ** (len(layers) - place) for place, layer in enumerate(layers) for p in layer}


def adamw(
    module: nn.Module,
    learning_rate: float,
    options: OptimizerOptions,
    rates: Mapping[nn.Parameter, float] | None = None,
) -> AdamW:
    """Make AdamW over a module's decayed and undecayed parameters; on a GPU in one kernel (``fused``).

    Args:
        module: Whose parameters.
        learning_rate: The peak, at least 0, which the options may have a factor on.
        options: The rest.
        rates: The peak learning rate, likewise, of parameters that have one of their own.

    Raises:
        UserError: The learning rate is negative.
    """
    check_rate("model.learning_rate", learning_rate)
    factor = options.rate_factor
    rates = {parameter: rate * factor for parameter, rate in (rates or {}).items()}
    groups = parameter_groups(module, options.weight_decay, rates)
    fused = all(p.is_cuda and not isinstance(p, DTensor) for group in groups for p in group["params"])
    optimizer = AdamW(groups, lr=learning_rate * factor, betas=options.betas, eps=options.eps, fused=fused or None)
    optimizer._step_supports_amp_scaling = False  # Lightning refuses to clip what it takes to unscale gradients itself
    return optimizer


def refuse_late_changes(callbacks: Iterable[L.Callback]) -> None:
    """See that no callback changes what the optimiser and its schedule were made for.

    Raises:
        UserError: One of Lightning's does; names what to give in its place.
    """
    for callback in callbacks:
        for kind, (what, instead) in TOO_LATE.items():
            if isinstance(callback, kind):
                name = type(callback).__name__
                raise UserError(
                    f"trainer.callbacks: {name} changes {what} when the schedule of the learning rate is already made:"
                    f" leave it out, and give {instead}",
                    argument="trainer.callbacks",
                    value=name,
                    valid=instead,
                )


def training_steps(trainer: L.Trainer) -> int:
    """Count the optimiser steps of a whole training, along which its schedule is laid; 1 where none is taken.

    Raises:
        UserError: The trainer's options leave the number of steps open.
    """
    if 0 in (trainer.max_epochs, trainer.max_steps, trainer.limit_train_batches):
        return 1
    steps = trainer.estimated_stepping_batches
    if not 0 < steps < math.inf:
        endless = trainer.max_epochs == -1
        raise invalid(
            "trainer.max_epochs" if endless else "trainer.max_steps",
            -1,
            "the learning rate falls along a cosine, which needs an end: give "
            + (
                "trainer.max_epochs or trainer.max_steps" if endless else "it, for an epoch's batches cannot be counted"
            ),
        )
    return int(steps)


def warmup_cosine_ratio(step: int, *, warmup_steps: int, total_steps: int, min_ratio: float = 0.0) -> float:
    """Give the share of the peak learning rate at one step: a line up to 1, then half a cosine down.

    Args:
        step: Optimiser steps already taken.
        warmup_steps: Steps of the line, which begins at ``1 / warmup_steps``.
        total_steps: Steps of the whole training; from there on the share stays ``min_ratio``.
        min_ratio: The share at the end, in [0, 1].
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, total_steps: int, min_ratio: float = 0.0) -> LambdaLR:
    """Warm the learning rates up, then let them fall along a cosine; ``step()`` it once an optimiser step.

    A checkpoint keeps the place and the peaks; a resumed run brings its own ``total_steps``, so it can be made longer.

    Args:
        optimizer: Its learning rates are the peaks.
        warmup_steps: Steps of linear warm-up, at least 0. In a training that is shorter, the rate only climbs.
        total_steps: Steps of the whole training, at least 1.
        min_ratio: What is left of the peaks at the end, in [0, 1].

    Raises:
        UserError: A number is out of its range.
    """
    if warmup_steps < 0:
        raise invalid("warmup_steps", warmup_steps, "give 0 or more")
    if total_steps < 1:
        raise invalid("total_steps", total_steps, "a training has at least one step")
    if not 0 <= min_ratio <= 1:
        raise invalid("min_ratio", min_ratio, "give a share of the peak learning rate, 0 to 1")
    ratio = partial(warmup_cosine_ratio, warmup_steps=warmup_steps, total_steps=total_steps, min_ratio=min_ratio)
    return LambdaLR(optimizer, ratio)


def two_cosines_ratio(
    step: int, *, warmup_steps: int, first_steps: int, total_steps: int, second_ratio: float
) -> float:
    """Give the share of the peak learning rate where a second phase of training has a peak and a cosine of its own.

    Args:
        step: Optimiser steps already taken.
        warmup_steps: Steps of the first phase's warm-up; the second has none.
        first_steps: Steps of the first phase.
        total_steps: Steps of both.
        second_ratio: The second phase's peak, as a share of the first's.
    """
    if step < first_steps:
        return warmup_cosine_ratio(step, warmup_steps=warmup_steps, total_steps=first_steps)
    second_steps = total_steps - first_steps
    return second_ratio * warmup_cosine_ratio(step - first_steps, warmup_steps=0, total_steps=second_steps)
