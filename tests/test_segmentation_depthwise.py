"""The depthwise convolution of training against torch's own, in double precision."""

import pytest
import torch
import torch.nn.functional as F

from retsam.segmentation.depthwise import depthwise

torch.set_num_threads(1)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("size", "padding"), [(3, 1), (5, 2), (5, 1)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients_are_those_of_torch(size: int, padding: int, stride: int, with_bias: bool):
    generator = torch.Generator().manual_seed(size + stride)
    x = torch.randn(2, 12, 17, 22, generator=generator).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(12, 1, size, size, generator=generator, requires_grad=True)
    inputs = [x, weight, *([torch.randn(12, generator=generator, requires_grad=True)] if with_bias else [])]
    ours = depthwise(x, weight, inputs[2] if with_bias else None, stride, padding)
    exact = [v.detach().double().requires_grad_() for v in inputs]
    theirs = F.conv2d(exact[0], exact[1], exact[2] if with_bias else None, stride, padding, groups=12)
    assert ours.shape == theirs.shape and torch.allclose(ours.double(), theirs, atol=1e-5)
    target = torch.randn(theirs.shape, generator=generator)
    found = torch.autograd.grad((ours * target).sum(), inputs)
    for got, expected in zip(found, torch.autograd.grad((theirs * target).sum(), exact), strict=True):
        assert torch.allclose(got.double(), expected, atol=1e-4, rtol=1e-5)


def test_under_autocast_gradients_have_the_types_of_what_they_belong_to():
    x, weight = torch.randn(1, 8, 9, 9, requires_grad=True), torch.randn(8, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise(x, weight, None, 1, 2)
    y.float().sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32
    exact = F.conv2d(x.detach(), weight.detach(), padding=2, groups=8)
    assert torch.allclose(y.float(), exact, atol=0.1)
    assert torch.allclose(weight.grad[:, 0, 2, 2], x.detach().sum((0, 2, 3)), atol=1e-3)


def test_what_needs_no_gradient_gets_none():
    weight = torch.randn(4, 1, 3, 3, requires_grad=True)
    depthwise(torch.randn(1, 4, 6, 6), weight, None, 2, 1).sum().backward()
    assert weight.grad is not None and torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_gradient_that_is_not_finite_stays_so(bad, stride):
    """Training leaves such a step out, and can only do so where it sees it."""
    x, weight = torch.randn(1, 4, 12, 12, requires_grad=True), torch.randn(4, 1, 5, 5, requires_grad=True)
    y = depthwise(x, weight, None, stride, 2)
    grad = torch.ones_like(y)
    grad[0, 1, 3, 3] = bad
    y.backward(grad)
    for found in (x.grad[0, 1], weight.grad[1]):
        assert not torch.isfinite(found).all()
    assert torch.isfinite(x.grad[0, [0, 2, 3]]).all() and torch.isfinite(weight.grad[[0, 2, 3]]).all()
