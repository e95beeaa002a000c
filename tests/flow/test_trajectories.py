"""Two velocities on one trajectory, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from plaudit.flow import Velocity, integrate, switch_step, two_model_velocity
from plaudit.generate.settings import SOLVERS, Solver, Trajectory

START = torch.tensor([0.7, -1.3], dtype=torch.float64)


def exponential(rate: float) -> Velocity:
    """dx/dt = rate x, whose solution from t = 1 is START exp(rate (t - 1))."""
    return lambda x, t, step: rate * x


@given(st.integers(1, 60), st.floats(0, 1))
def test_the_first_is_on_while_progress_is_below_the_hand_over(steps: int, at: float) -> None:
    first = switch_step(at, steps)
    assert all(step / steps < at for step in range(first)) and all(step / steps >= at for step in range(first, steps))


def test_the_published_switch_is_at_the_rounded_step() -> None:
    assert (switch_step(0.5, 25, "published"), switch_step(0.5, 25)) == (12, 13)  # 12.5 to the even step
    assert [switch_step(at, 25, "published") for at in (0.0, 0.3, 0.42, 1.0)] == [0, 8, 10, 25]
    used: list[str] = []

    def recording(name: str) -> Velocity:
        def velocity(x: Tensor, t: float, step: int) -> Tensor:
            used.append(name)
            return x

        return velocity

    trajectory = Trajectory(at=0.5)
    velocity = two_model_velocity(recording("first"), recording("second"), trajectory, 25, "published")
    integrate(velocity, START, 25)
    assert used == ["first"] * 12 + ["second"] * 13


@pytest.mark.parametrize("solver", SOLVERS)
def test_at_the_ends_one_is_alone(solver: Solver) -> None:
    first, second = exponential(-1.0), exponential(2.0)
    for trajectory, alone in (
        (Trajectory(at=0.0), second),
        (Trajectory(at=1.0), first),
        (Trajectory(mode="average", weight=1.0), second),
        (Trajectory(mode="average", weight=0.0), first),
    ):
        output = integrate(two_model_velocity(first, second, trajectory, 8), START, 8, solver)
        assert torch.equal(output, integrate(alone, START, 8, solver))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("values", [{"at": 0.3}, {"mode": "average", "weight": 0.3}])
def test_two_equal_checkpoints_are_one(solver: Solver, values: dict[str, object]) -> None:
    one = exponential(1.5)
    trajectory = Trajectory.model_validate(values)
    output = integrate(two_model_velocity(one, one, trajectory, 9), START, 9, solver)
    torch.testing.assert_close(output, integrate(one, START, 9, solver), atol=1e-12, rtol=0)


@pytest.mark.parametrize("solver", ["heun", "midpoint"])
def test_every_evaluation_of_a_step_is_of_one_checkpoint(solver: Solver) -> None:
    seen: list[tuple[str, int]] = []

    def recording(name: str) -> Velocity:
        def velocity(x: Tensor, t: float, step: int) -> Tensor:
            seen.append((name, step))
            return x

        return velocity

    integrate(two_model_velocity(recording("first"), recording("second"), Trajectory(at=0.5), 4), START, 4, solver)
    assert seen == [(name, step) for step, name in enumerate(["first"] * 2 + ["second"] * 2) for _ in range(2)]


def switch_error(solver: Solver, steps: int, shift: float, restart: bool = True) -> float:
    """Distance from the exact solution of two linear flows, the second from the middle of the grid on."""
    trajectory = Trajectory(at=0.5)
    velocity = two_model_velocity(exponential(-1.0), exponential(2.0), trajectory, steps)
    jumps = {switch_step(0.5, steps)} if restart else set()
    output = integrate(velocity, START, steps, solver, shift, jumps)
    middle = 0.5 / (0.5 + 0.5 / shift)  # the shifted grid's time at half of the steps
    exact = START * math.exp(-1.0 * (middle - 1)) * math.exp(2.0 * (0 - middle))
    return float((output - exact).abs().max())


@pytest.mark.parametrize("solver, order", [("euler", 1), ("heun", 2), ("midpoint", 2), ("ab2", 2)])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_hand_over_leaves_the_order_of_convergence(solver: Solver, order: int, shift: float) -> None:
    ratio = switch_error(solver, 128, shift) / switch_error(solver, 256, shift)
    assert math.log2(ratio) == pytest.approx(order, abs=0.1)


def test_a_multistep_solver_that_keeps_its_past_over_a_hand_over_is_of_first_order() -> None:
    ratio = switch_error("ab2", 128, 1.0, restart=False) / switch_error("ab2", 256, 1.0, restart=False)
    assert math.log2(ratio) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_averaged_linear_flows_are_the_flow_of_the_average_rate(solver: Solver) -> None:
    trajectory = Trajectory(mode="average", weight=0.25)
    output = integrate(two_model_velocity(exponential(-1.0), exponential(2.0), trajectory, 12), START, 12, solver)
    torch.testing.assert_close(output, integrate(exponential(-0.25), START, 12, solver), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "values",
    [
        {"at": 1.5},
        {"weight": -0.1},
        {"mode": "alternate"},
        {"mode": "average", "at": 0.3},
        {"weight": 0.3},
        {"share": 1},
    ],
)
def test_bad_values_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Trajectory.model_validate(values)
