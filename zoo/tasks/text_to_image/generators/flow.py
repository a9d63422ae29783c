"""Rectified flow: straight paths from data (time 0) to noise (time 1), and the way back along a learnt velocity.

Liu et al., "Flow Straight and Fast" (2022), arXiv:2209.03003; Esser et al., "Scaling Rectified Flow Transformers for
High-Resolution Image Synthesis" (2024), arXiv:2403.03206. Shapes: B batch, … the rest of a sample's shape.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.errors import UserError, invalid, nearest

# States [B, …] and their common time, a scalar on the CPU → velocities [B, …].
Velocity = Callable[[Tensor, Tensor], Tensor]

SOLVERS = ("euler", "heun")


def draw_times(count: int, *, shift: float = 1.0, device: torch.device | str = "cpu") -> Tensor:
    """Sample the times to train at, ``[count]`` in (0, 1): the logistic function of normal noise, then shifted.

    A shift s puts the time s · t / (1 + (s − 1) · t) for t: it adds ln s to the noise.
    """
    return torch.sigmoid(torch.randn(count, device=device) + math.log(shift))


def mix(data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The states ``[B, …]`` on the straight paths from data to noise at times ``[B]`` or one time for all."""
    time = time.reshape(-1, *[1] * (data.ndim - 1))
    return (1 - time) * data + time * noise


def path_velocity(data: Tensor, noise: Tensor) -> Tensor:
    """The velocity ``[B, …]`` of the straight paths, the same at all times: what a network learns to foretell."""
    return noise - data


def solve(
    velocity: Velocity, start: Tensor, *, solver: str, steps: int, strength: float = 1.0, shift: float = 1.0
) -> Tensor:
    """Walk from noise to data along a velocity, by diffusers' flow-matching solvers.

    Args:
        velocity: Of states at a time.
        start: ``[B, …] float32``: noise or, where ``strength`` is less than 1, data mixed with noise at the time that
            ``start_time`` gives.
        solver: ``euler``: one velocity a step; ``heun``: two, but for the last, and errors of second order. Both step
            evenly in time before the shift.
        steps: Of the whole way from time 1 to 0.
        strength: The share of the steps that is walked, the last ones, above 0 to 1.
        shift: As ``draw_times`` takes it.

    Returns:
        The states at time 0, ``[B, …] float32``.

    Raises:
        UserError: The solver is unknown, or a number is out of its range.
    """
    scheduler, first = _scheduler(solver, steps, strength, shift)
    state = start.float()
    for timestep in scheduler.timesteps[first:]:
        foretold = velocity(state, timestep / 1000)
        state = scheduler.step(foretold.float(), timestep, state).prev_sample
    return state


def start_time(*, solver: str, steps: int, strength: float, shift: float = 1.0) -> Tensor:
    """The time at which ``solve`` begins, a scalar in (0, 1]: 1 where the strength is."""
    scheduler, first = _scheduler(solver, steps, strength, shift)
    return scheduler.timesteps[first] / 1000


def _scheduler(solver: str, steps: int, strength: float, shift: float) -> tuple[Any, int]:
    """A solver set to its steps, and the place among its time steps where it begins."""
    check_sampling(solver=solver, steps=steps, strength=strength)
    from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

    skipped = steps - max(1, round(strength * steps))
    scheduler: Any
    if solver == "euler":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(sigmas=torch.linspace(1, 0, steps + 1)[:-1].tolist())
    else:
        scheduler = FlowMatchHeunDiscreteScheduler(shift=shift)
        scheduler.sigma_min = 1 / steps  # the same even times as Euler's, not a last one close to 0
        scheduler.set_timesteps(steps)
        skipped *= 2  # each but the first time comes twice: as the end of one step, and as the beginning of the next
    scheduler.set_begin_index(skipped)
    return scheduler, skipped


def check_sampling(*, solver: str, steps: int, strength: float = 1.0) -> None:
    """See that there is such a solver and that it can take these steps.

    Raises:
        UserError: There is not, or it cannot.
    """
    if solver not in SOLVERS:
        raise UserError(f"solver {solver!r} is not one of {', '.join(SOLVERS)}.{nearest(solver, SOLVERS)}")
    if steps < 1:
        raise invalid("steps", steps, "give 1 or more")
    if not 0 < strength <= 1:
        raise invalid("strength", strength, "give a share of the way above 0 and at most 1, such as 0.6")
