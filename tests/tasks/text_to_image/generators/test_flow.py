"""The mathematics of rectified flow, on distributions whose velocity is known in closed form."""

import pytest
import torch

from zoo.errors import UserError
from zoo.tasks.text_to_image.generators.flow import draw_times, mix, path_velocity, solve, start_time

MEANS, DEVIATION = torch.tensor([-2.0, 1.0]), 0.3


def two_gaussians_velocity(state, time):
    """E[ε − x₀ | x_t] where x₀ is one of two Gaussians with equal probability."""
    mean, variance = (1 - time) * MEANS, (1 - time) ** 2 * DEVIATION**2 + time**2  # of x_t, by component
    offset = state[:, None] - mean
    weights = torch.softmax(-(offset**2) / (2 * variance), dim=1)
    data = MEANS + (1 - time) * DEVIATION**2 / variance * offset
    noise = time / variance * offset
    return (weights * (noise - data)).sum(dim=1)


@pytest.mark.parametrize(("solver", "steps"), [("euler", 200), ("heun", 60)])
def test_a_solver_recovers_two_gaussians(solver, steps):
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    found = solve(two_gaussians_velocity, noise, solver=solver, steps=steps)
    for mean, part in zip(MEANS.tolist(), (found[found < -0.5], found[found >= -0.5]), strict=True):
        assert len(part) / len(found) == pytest.approx(0.5, abs=0.01)
        assert part.mean().item() == pytest.approx(mean, abs=0.02)
        assert part.std().item() == pytest.approx(DEVIATION, abs=0.02)


def test_heun_errs_less_than_euler_for_the_same_velocities():
    noise = torch.randn(2_000, generator=torch.Generator().manual_seed(0))
    exact = solve(two_gaussians_velocity, noise, solver="heun", steps=1_000)
    evaluations = {"euler": 31, "heun": 16}  # Heun's take 2 × 16 − 1 velocities
    error = {
        s: (solve(two_gaussians_velocity, noise, solver=s, steps=n) - exact).abs().mean()
        for s, n in evaluations.items()
    }
    assert error["heun"] < error["euler"] / 2


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_straight_path_is_walked_exactly(solver, steps):
    data, noise = torch.randn(2, 5, 3)
    found = solve(lambda state, time: path_velocity(data, noise), noise, solver=solver, steps=steps)
    torch.testing.assert_close(found, data, atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("strength", [0.01, 0.5, 0.6, 1.0])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_part_of_the_way_begins_where_start_time_says(solver, strength, shift):
    data, noise = torch.randn(2, 5, 3)
    time = start_time(solver=solver, steps=10, strength=strength, shift=shift)
    seen = []

    def velocity(state, now):
        seen.append(now)
        torch.testing.assert_close(state, mix(data, noise, now), atol=1e-5, rtol=0)
        return path_velocity(data, noise)

    found = solve(velocity, mix(data, noise, time), solver=solver, steps=10, strength=strength, shift=shift)
    assert seen[0] == time
    even = max(0.1, strength)
    assert time.item() == pytest.approx(shift * even / (1 + (shift - 1) * even))
    torch.testing.assert_close(found, data, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("solver", "repeats"), [("euler", 1), ("heun", 2)])
@pytest.mark.parametrize("shift", [1.0, 4.0])
def test_velocities_are_asked_for_at_even_times_that_are_shifted(solver, repeats, shift):
    times = []
    solve(lambda state, time: times.append(float(time)) or state, torch.zeros(1), solver=solver, steps=10, shift=shift)
    even = [step / 10 for step in range(10, 0, -1)]
    even = even[:1] + [time for time in even[1:] for _ in range(repeats)]  # but for the first, Heun's at both ends
    assert times == pytest.approx([shift * time / (1 + (shift - 1) * time) for time in even])


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_without_a_shift_the_way_begins_at_its_strength(solver):
    assert start_time(solver=solver, steps=10, strength=0.3).item() == pytest.approx(0.3)


def test_the_ends_of_a_path():
    data, noise = torch.randn(2, 4, 3, 2, 2)
    assert torch.equal(mix(data, noise, torch.zeros(4)), data)
    assert torch.equal(mix(data, noise, torch.ones(4)), noise)
    torch.testing.assert_close(mix(data, noise, torch.full((4,), 0.3)), data + 0.3 * path_velocity(data, noise))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_times_are_logit_normal_then_shifted(shift):
    torch.manual_seed(0)
    shifted = draw_times(20_000, shift=shift)
    times = torch.logit(shifted / (shift - (shift - 1) * shifted))  # the shift taken back
    assert times.mean().item() == pytest.approx(0, abs=0.03)
    assert times.std().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "eular", "steps": 4}, "solver 'eular' is not one of euler, heun. Did you mean euler?"),
        ({"solver": "heun", "steps": 0}, "steps is 0: give 1 or more"),
        ({"solver": "heun", "steps": 4, "strength": 0.0}, "strength is 0.0: give a share of the way above 0"),
        ({"solver": "euler", "steps": 4, "strength": 1.01}, "strength is 1.01: give a share of the way above 0"),
    ],
)
def test_what_cannot_be_walked_is_refused(options, message):
    with pytest.raises(UserError) as error:
        solve(lambda state, time: state, torch.zeros(1), **options)
    assert message in str(error.value)
