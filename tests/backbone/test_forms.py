from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from plaudit.backbone import forms
from tests.pretend_gpu import PretendGPU


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_gradients(function: Callable[..., Tensor], *operands: Tensor | None) -> list[Tensor]:
    """The result, and the gradients of a fixed linear function of it with respect to the operands."""
    leaves = [None if operand is None else operand.detach().requires_grad_() for operand in operands]
    result = function(*leaves)
    used = [leaf for leaf in leaves if leaf is not None]
    return [result.detach(), *torch.autograd.grad((result.float() * normal(*result.shape, seed=9)).sum(), used)]


@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 9),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 5),
    margin=st.integers(0, 3),
    biased=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_convolutions_in_other_forms_and_their_gradients_are_those_of_conv1d(
    batch: int, length: int, inputs: int, outputs: int, margin: int, biased: bool
) -> None:
    x = normal(batch, length, 2 * inputs)[:, :, ::2]  # not contiguous
    weight, bias = normal(outputs, inputs, 2 * margin + 1, seed=1), normal(outputs, seed=2) if biased else None
    exact = with_gradients(forms.convolve_by_conv1d, x, weight, bias)
    for form in (forms.convolve_by_product, forms.convolve_by_conv2d):
        for one, other in zip(with_gradients(form, x, weight, bias), exact, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def sdpa(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(queries, keys, values)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_attention_by_products_and_its_gradients_are_those_of_sdpa(
    batch: int, heads: int, queries: int, keys: int, width: int
) -> None:
    operands = [normal(batch, heads, length, 2 * width, seed=i) for i, length in enumerate((queries, keys, keys))]
    ours, exact = with_gradients(forms.attend_by_products, *operands), with_gradients(sdpa, *operands)
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def relative_error(result: Tensor, exact: Tensor) -> float:
    return float((result.float() - exact).norm() / exact.norm())


def test_under_autocast_all_forms_are_within_the_rounding_of_bfloat16() -> None:
    x, weight, bias = normal(2, 40, 16), normal(24, 16, 3, seed=1) / 7, normal(24, seed=2)
    q, k, v = (normal(2, 3, 40, 16, seed=i) for i in range(3))
    convolutions = [with_gradients(forms.convolve_by_conv1d, x, weight, bias)]
    attentions = [with_gradients(sdpa, q, k, v)]
    with torch.autocast("cpu", torch.bfloat16):
        ways = (forms.convolve_by_product, forms.convolve_by_conv2d, forms.convolve)
        convolutions += [with_gradients(form, x, weight, bias) for form in ways]
        attentions += [with_gradients(form, q, k, v) for form in (forms.attend_by_products, sdpa)]
        assert forms.convolve(x, weight, bias).dtype == forms.attend(q, k, v).dtype == torch.bfloat16
    for exact, *others in (convolutions, attentions):
        for other in others:
            assert all(relative_error(*pair) < 0.015 for pair in zip(other, exact, strict=True))
            assert all(result.dtype == torch.float32 for result in other[1:])


def calls(monkeypatch: pytest.MonkeyPatch, function: Callable[[], object]) -> set[str]:
    """Names of the forms that `function` runs."""
    names: set[str] = set()

    def counting(name: str, form: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(*operands: Tensor) -> Tensor:
            names.add(name)
            return form(*operands)

        return counted

    for name in ("convolve_by_product", "convolve_by_conv2d", "convolve_by_conv1d", "attend_by_products"):
        monkeypatch.setattr(forms, name, counting(name, getattr(forms, name)))
    function()
    monkeypatch.undo()
    return names


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_form_follows_the_precision_of_the_product(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, autocast: bool
) -> None:
    x, weight, q = (normal(*shape).to(dtype) for shape in ((1, 5, 4), (2, 4, 3), (1, 2, 5, 4)))

    def both() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            forms.convolve(x, weight, None)
            forms.attend(q, q, q)

    half = autocast or dtype == torch.bfloat16
    expected = {"convolve_by_product", "attend_by_products"} if half else {"convolve_by_conv1d"}
    assert calls(monkeypatch, both) == expected


def test_a_gpu_convolves_in_two_dimensions_where_no_gradient_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    with PretendGPU():
        x, weight = (normal(*shape).bfloat16().to("cuda") for shape in ((1, 5, 4), (2, 4, 3)))
        assert calls(monkeypatch, lambda: forms.convolve(x, weight, None)) == {"convolve_by_product"}
        with torch.no_grad():
            assert calls(monkeypatch, lambda: forms.convolve(x, weight, None)) == {"convolve_by_conv2d"}


def test_many_keys_are_left_to_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = normal(1, 1, 3, 4).bfloat16(), normal(1, 1, forms.LONGEST + 1, 4).bfloat16()
    assert calls(monkeypatch, lambda: forms.attend(queries, keys, keys)) == set()


def test_a_matrix_in_the_memory_of_the_product_is_not_copied() -> None:
    weight = normal(6, 4, 3).bfloat16()
    laid_out = weight.permute(0, 2, 1).contiguous().permute(0, 2, 1)
    x, seen, linear = normal(2, 5, 4).bfloat16(), list[int](), functional.linear

    def watched(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(matrix.data_ptr())
        return linear(x, matrix, bias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "linear", watched)
        torch.testing.assert_close(
            forms.convolve(x, laid_out, None), forms.convolve(x, weight, None), atol=1e-2, rtol=1e-2
        )
    assert seen[0] == laid_out.data_ptr() and seen[1] != weight.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_mode_derivatives_are_those_of_differences(dtype: torch.dtype) -> None:
    x, q = normal(2, 6, 4, seed=3), normal(1, 2, 6, 4, seed=4)
    weight = normal(5, 4, 3, seed=5)

    def both(x: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            return forms.convolve(x, weight, None).float(), forms.attend(q, q, 2 * q).float()

    def exact(x: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        x, q, matrix = x.double(), q.double(), weight.double()
        return forms.convolve(x, matrix, None), forms.attend_by_products(q, q, 2 * q).transpose(1, 2).flatten(2)

    along = (normal(2, 6, 4, seed=6), normal(1, 2, 6, 4, seed=7))
    with sdpa_kernel(SDPBackend.MATH):
        ours = torch.func.jvp(both, (x, q), along)[1]
    step = 1e-4
    ends = [exact(x.double() + sign * step * along[0], q.double() + sign * step * along[1]) for sign in (1, -1)]
    for derivative, ahead, behind in zip(ours, ends[0], ends[1], strict=True):
        assert relative_error(derivative, (ahead - behind) / (2 * step)) < (1e-4 if dtype == torch.float32 else 0.03)


def test_forms_compile_to_one_graph_and_compute_the_same() -> None:
    x, weight, q = normal(2, 6, 4), normal(5, 4, 3, seed=1), normal(1, 2, 6, 4)

    def both(x: Tensor, weight: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        return forms.convolve(x, weight, None), forms.attend(q, q, q)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            for ours, exact in zip(compiled(x, weight, q), both(x, weight, q), strict=True):
                assert ours.dtype == exact.dtype
                torch.testing.assert_close(ours, exact, atol=1e-5, rtol=1e-5)
