import torch

from phaseb.trust.batched import BatchedGRU, BatchedLinear


def as_torch(stack: BatchedGRU, network: int) -> torch.nn.GRU:
    """The same network as torch's own GRU."""
    weight, bias = stack.inputs.weight[network], stack.inputs.bias[network, 0]
    units = stack.recurrent.shape[1]
    gru = torch.nn.GRU(weight.shape[0], units, batch_first=True)
    with torch.no_grad():
        gru.weight_ih_l0.copy_(weight.T)
        gru.bias_ih_l0.copy_(bias)
        gru.weight_hh_l0.copy_(stack.recurrent[network].T)
        gru.bias_hh_l0.zero_()
        gru.bias_hh_l0[2 * units :] = stack.candidate_bias[network, 0]
    return gru


def test_each_slice_is_a_gru_and_so_is_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    stack = BatchedGRU(3, 4, 5, generator)
    x = torch.randn(3, 6, 9, 4, generator=generator, requires_grad=True)
    hidden = stack(x)
    upstream = torch.randn(hidden.shape, generator=generator)
    ours = torch.autograd.grad((hidden * upstream).sum(), [x, *stack.parameters()])
    named = dict(zip(["x", *dict(stack.named_parameters())], ours, strict=True))
    for network in range(3):
        gru = as_torch(stack, network)
        expected = gru(x[network])[0]
        assert torch.allclose(hidden[network], expected, atol=1e-6)
        wanted = [x, gru.weight_hh_l0, gru.weight_ih_l0, gru.bias_hh_l0]
        grads = torch.autograd.grad((expected * upstream[network]).sum(), wanted)
        assert torch.allclose(named["x"][network], grads[0][network], atol=1e-5)
        assert torch.allclose(named["recurrent"][network], grads[1].T, atol=1e-4)
        assert torch.allclose(named["inputs.weight"][network], grads[2].T, atol=1e-4)
        assert torch.allclose(named["candidate_bias"][network, 0], grads[3][10:], atol=1e-4)


def test_linear_slices_do_not_mix() -> None:
    layer = BatchedLinear(2, 3, 4, torch.Generator().manual_seed(0))
    x = torch.randn(2, 5, 7, 3)
    y = layer(x)
    assert torch.allclose(y[1, 2], x[1, 2] @ layer.weight[1] + layer.bias[1], atol=1e-6)
    x[0] = 0
    assert torch.equal(layer(x)[1], y[1])
