from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import RecipeError
from plaudit.flow import integrate, time_grid
from plaudit.generate.settings import SOLVERS, Solver

START = torch.tensor([0.7, -1.3], dtype=torch.float64)


def error(solver: Solver, steps: int, shift: float = 1.0) -> float:
    """Distance from the exact solution of dx/dt = -2 t x + t at t = 0, where x - 1/2 = (x(1) - 1/2) e."""
    output = integrate(lambda x, t, step: -2 * t * x + t, START, steps, solver, shift)
    return float((output - (0.5 + (START - 0.5) * math.e)).abs().max())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 3, 25])
def test_a_straight_path_is_followed_exactly(solver: Solver, steps: int) -> None:
    data, noise = torch.tensor([2.0, 5.0]), torch.tensor([-1.0, 0.5])
    output = integrate(lambda x, t, step: noise - data, noise, steps, solver)
    torch.testing.assert_close(output, data)


@pytest.mark.parametrize("solver, order", [("euler", 1), ("heun", 2), ("midpoint", 2), ("ab2", 2)])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_order_of_convergence(solver: Solver, order: int, shift: float) -> None:
    assert math.log2(error(solver, 128, shift) / error(solver, 256, shift)) == pytest.approx(order, abs=0.1)


def test_heun_with_a_last_euler_step_is_heun_up_to_that_step() -> None:
    times: list[float] = []

    def velocity(x: torch.Tensor, t: float, step: int) -> torch.Tensor:
        times.append(t)
        return -2 * t * x + t

    output = integrate(velocity, START, 4, "heun-euler")
    assert times == [1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]  # two evaluations a step, one in the last
    x = START
    for t in (1.0, 0.75, 0.5):
        here = velocity(x, t, 0)
        x = x - 0.25 * (here + velocity(x - 0.25 * here, t - 0.25, 0)) / 2
    torch.testing.assert_close(output, x - 0.25 * velocity(x, 0.25, 0))


ROTATION = torch.tensor([[0.0, -3.0], [3.0, 0.0]], dtype=torch.float64)


def rotate(x: torch.Tensor, t: float, step: int) -> torch.Tensor:
    """dx/dt = A x, a turn by 3 radians from t = 1 to 0."""
    return x @ ROTATION.T


@pytest.mark.parametrize("solver, order", [("euler", 1), ("heun", 2), ("midpoint", 2), ("ab2", 2)])
@pytest.mark.parametrize("shift", [1.0, 0.5, 3.0])
def test_order_of_convergence_to_a_rotation(solver: Solver, order: int, shift: float) -> None:
    exact = START @ torch.linalg.matrix_exp(-ROTATION).T
    errors = [float((integrate(rotate, START, n, solver, shift) - exact).norm()) for n in (128, 256, 512)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_linear_flow_is_multiplied_by_each_methods_polynomial(shift: float) -> None:
    """Of dx/dt = a x a step of length h is a factor: 1 + ah by Euler, 1 + ah + (ah)^2 / 2 by Heun and midpoint."""
    rate, moves = 1.7, [b - a for a, b in pairwise(time_grid(9, shift))]
    first = math.prod(1 + rate * h for h in moves)
    second = math.prod(1 + rate * h + (rate * h) ** 2 / 2 for h in moves)
    for solver, factor in (("euler", first), ("heun", second), ("midpoint", second)):
        output = integrate(lambda x, t, step: rate * x, START, 9, solver, shift)
        torch.testing.assert_close(output, START * factor, atol=1e-12, rtol=0)
    values = [1.0, 1 + rate * moves[0]]
    for h, length in zip(moves[1:], moves[:-1], strict=True):
        values.append(values[-1] + h * rate * (values[-1] + h / (2 * length) * (values[-1] - values[-2])))
    output = integrate(lambda x, t, step: rate * x, START, 9, "ab2", shift)
    torch.testing.assert_close(output, START * values[-1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("solver, degree", [("euler", 0), ("heun", 1), ("midpoint", 1), ("ab2", 1)])
def test_velocities_that_depend_on_time_alone_are_integrated_exactly_up_to_a_degree(
    solver: Solver, degree: int
) -> None:
    """The integral of t^k is 1 / (k + 1): exact up to the method's degree on any grid, and not beyond it."""
    for power in (0, 1, 2):
        output = integrate(lambda x, t, step, k=power: torch.full_like(x, t**k), START, 8, solver, 3.0)
        apart = float((output - (START - 1 / (power + 1))).abs().max())
        begun = power and solver == "ab2"  # its first step is Euler's
        assert (apart < 1e-12) == (power <= degree and not begun)


def test_ab2_after_a_jump_begins_anew_with_an_euler_step() -> None:
    def velocity(x: torch.Tensor, t: float, step: int) -> torch.Tensor:
        return (step + 1.0) * x

    halves = integrate(velocity, START, 4, "ab2", jumps={1, 2, 3})
    assert torch.equal(halves, integrate(velocity, START, 4, "euler"))
    assert not torch.equal(halves, integrate(velocity, START, 4, "ab2"))


@given(st.integers(1, 60), st.floats(0.1, 10))
def test_a_grid_falls_from_one_to_zero_and_shifts_towards_noise(steps: int, shift: float) -> None:
    times = time_grid(steps, shift)
    assert times[0] == 1 and times[-1] == 0 and all(a > b for a, b in pairwise(times))
    uniform = time_grid(steps)
    assert all((t - u) * (shift - 1) >= -1e-12 for t, u in zip(times, uniform, strict=True))
    assert uniform == [1 - i / steps for i in range(steps + 1)]


def test_a_gaussian_is_carried_to_the_data_distribution() -> None:
    """For data N(m, s^2) the marginal velocity is known in closed form, and the flow maps noise z to m + s z."""
    mean, std = 3.0, 0.5

    def velocity(x: torch.Tensor, t: float, step: int) -> torch.Tensor:
        variance = ((1 - t) * std) ** 2 + t**2
        centred = x - (1 - t) * mean
        return -mean + (t - (1 - t) * std**2) / variance * centred

    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    torch.testing.assert_close(integrate(velocity, noise, 200, "heun"), mean + std * noise, atol=1e-3, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_times_run_from_one_towards_zero_and_name_their_step(solver: Solver) -> None:
    seen: list[tuple[int, float]] = []

    def velocity(x: torch.Tensor, t: float, step: int) -> torch.Tensor:
        seen.append((step, t))
        return torch.zeros_like(x)

    integrate(velocity, START, 4, solver)
    times = {
        "euler": [(0, 1.0), (1, 0.75), (2, 0.5), (3, 0.25)],
        "heun": [(0, 1.0), (0, 0.75), (1, 0.75), (1, 0.5), (2, 0.5), (2, 0.25), (3, 0.25), (3, 0.0)],
        "heun-euler": [(0, 1.0), (0, 0.75), (1, 0.75), (1, 0.5), (2, 0.5), (2, 0.25), (3, 0.25)],
        "ab2": [(0, 1.0), (1, 0.75), (2, 0.5), (3, 0.25)],
        "midpoint": [(0, 1.0), (0, 0.875), (1, 0.75), (1, 0.625), (2, 0.5), (2, 0.375), (3, 0.25), (3, 0.125)],
    }
    assert seen == times[solver]


def test_noise_is_left_as_it_was() -> None:
    noise = START.clone()
    integrate(lambda x, t, step: x, noise, 3)
    assert torch.equal(noise, START)


def test_bad_steps_and_solvers_are_refused() -> None:
    with pytest.raises(RecipeError, match="at least 1 step"):
        integrate(lambda x, t, step: x, START, 0)
    with pytest.raises(RecipeError, match="shift of the time grid must be above 0"):
        integrate(lambda x, t, step: x, START, 3, "euler", 0.0)
    with pytest.raises(RecipeError, match="rk45"):
        integrate(lambda x, t, step: x, START, 3, "rk45")  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_step_is_announced_and_an_error_ends_the_integration(solver: Solver) -> None:
    announced: list[tuple[int, int]] = []
    evaluated: set[int] = set()

    def velocity(x: torch.Tensor, t: float, step: int) -> torch.Tensor:
        evaluated.add(step)
        return x

    def stop(step: int, steps: int) -> None:
        announced.append((step, steps))
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        integrate(velocity, torch.zeros(1, 2, 3), 4, solver, on_step=stop)
    assert announced == [(0, 4), (1, 4), (2, 4)]
    assert evaluated == {0, 1}
