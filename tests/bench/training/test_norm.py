from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from bench.errors import SpecError
from bench.training.distributed import average_gradients, gather, own_rows, process_count
from bench.training.norm import grouped_batch_norm, synchronize_batch_norm

from .ranks import in_group

W = 2
KINDS: dict[str, tuple[type[nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "vectors": (nn.BatchNorm1d, (), {}),
    "lines": (nn.BatchNorm1d, (5,), {"momentum": 0.3}),
    "images": (nn.BatchNorm2d, (4, 3), {"momentum": None}),
    "volumes": (nn.BatchNorm3d, (2, 3, 2), {"affine": False}),
    "no memory": (nn.BatchNorm2d, (4, 3), {"track_running_stats": False}),
}


def network(kind: str) -> nn.Sequential:
    """A batch norm that has already seen one batch."""
    norm, size, options = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(norm(3, **options)).double()
        for parameter in net.parameters():
            nn.init.normal_(parameter, mean=1.0)
        net(torch.randn(6, 3, *size, dtype=torch.float64))
    return net


def batch(kind: str, rows: int = 12) -> Tensor:
    """Far from zero, and with another scale in every row: what is lost by summing squares shows."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 3, *KINDS[kind][1], dtype=torch.float64, generator=generator)
    return 1e3 + x * torch.arange(1, rows + 1).view(-1, *(1 for _ in x.shape[1:]))


def outcome(net: nn.Sequential, x: Tensor) -> dict[str, Tensor]:
    """Output, gradients of a loss that is a mean over rows, and state, of the whole batch."""
    x = x.clone().requires_grad_()
    y = net(x)
    weights = torch.linspace(-1, 1, y.shape[1:].numel(), dtype=y.dtype).view(y.shape[1:])
    torch.autograd.backward((y.sin() * weights).flatten(1).sum(1).mean())
    average_gradients(net.parameters())
    assert x.grad is not None
    found = {"output": gather(y.detach()), "input gradient": gather(x.grad) / process_count()}
    found |= {f"gradient of {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    return found | net.state_dict()


def parts_alone(kind: str, x: Tensor, groups: int) -> dict[str, Tensor]:
    """What ``groups`` separate batch norms make of the parts, their running statistics averaged."""
    nets = [network(kind) for _ in range(groups)]
    parts = x.tensor_split(groups)
    outputs = torch.cat([net(part) for net, part in zip(nets, parts, strict=True)])
    states = [net.state_dict() for net in nets]
    means = {name: torch.stack([state[name].double() for state in states]).mean(0) for name in states[0]}
    return {"output": outputs.detach(), **means}


def work() -> dict[tuple[str, int], dict[str, Tensor]]:
    results = {}
    for kind in KINDS:
        for groups in (1, 2, 4):
            net = network(kind)
            synchronize_batch_norm(net, "cpu")
            net = copy.deepcopy(net)  # a copy normalizes by itself too
            with grouped_batch_norm(net, groups):
                results[kind, groups] = outcome(net, own_rows(batch(kind)))
    return results


def refusals() -> list[str]:
    found = []
    for groups in (3, 4):
        try:
            with grouped_batch_norm(net := network("vectors"), groups):
                net(batch("vectors")[:5])
        except SpecError as error:
            found.append(str(error))
    return found


def mixed() -> tuple[Tensor, Tensor]:
    net = nn.Sequential(nn.BatchNorm1d(3))
    synchronize_batch_norm(net, "cpu")
    x = batch("vectors").bfloat16()
    synchronized = net(own_rows(x))
    expected: Tensor = nn.BatchNorm1d(3)(x)
    net.eval()
    assert torch.equal(net(x), nn.Sequential.forward(net, x))
    return gather(synchronized.detach()), expected.detach()


def everything() -> tuple[Any, list[str], tuple[Tensor, Tensor]]:
    return work(), refusals(), mixed()


@pytest.fixture(scope="module")
def two_processes() -> Any:
    return in_group(W, everything)


def test_processes_normalize_the_whole_batch_or_its_groups_like_one(two_processes: Any) -> None:
    for (kind, groups), found in two_processes[0].items():
        net = network(kind)
        with grouped_batch_norm(net, groups):
            expected = outcome(net, batch(kind))
        assert list(found) == list(expected)
        for name, value in expected.items():
            said = f"{kind}, {groups} groups, {name}: "
            assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=lambda text, said=said: said + text)


def test_processes_refuse_groups_that_they_cannot_hold_as_a_whole(two_processes: Any) -> None:
    assert "over 3 groups of the batch with 2 processes" in two_processes[1][0]
    assert "5 rows in a process cannot be divided into 2 equal groups" in two_processes[1][1]


def test_half_precision_is_normalized_by_statistics_in_full_precision(two_processes: Any) -> None:
    found, expected = two_processes[2]
    assert found.dtype == torch.bfloat16
    assert_close(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("groups", [2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_each_group_is_normalized_alone_and_the_statistics_move_once(kind: str, groups: int) -> None:
    net = network(kind)
    with grouped_batch_norm(net, groups):  # 12 rows in 5 groups: 3, 3, 2, 2, 2
        found = outcome(net, batch(kind))
    for name, value in parts_alone(kind, batch(kind), groups).items():
        assert_close(found[name].double(), value.double(), rtol=1e-9, atol=1e-11)


def test_after_the_groups_everything_is_as_before() -> None:
    net = network("images")
    before = {name: dict(module.__dict__) for name, module in net.named_modules()}
    with pytest.raises(KeyError), grouped_batch_norm(net, 3):
        assert "forward" in net[0].__dict__
        raise KeyError
    assert {name: list(module.__dict__) for name, module in net.named_modules()} == {
        n: list(d) for n, d in before.items()
    }
    assert_close(net(batch("images")), network("images")(batch("images")), rtol=0, atol=0)


def test_groups_leave_the_eval_mode_alone() -> None:
    net = network("vectors").eval()
    expected, state = net(batch("vectors")), copy.deepcopy(net.state_dict())
    with grouped_batch_norm(net, 4):
        assert torch.equal(net(batch("vectors")), expected)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in state.items())


def test_one_group_and_one_process_change_nothing() -> None:
    net = network("images")
    synchronize_batch_norm(net, "cpu")
    with grouped_batch_norm(net, 1):
        assert "forward" not in net[0].__dict__


@pytest.mark.parametrize("groups", [0, 13])
def test_groups_that_the_batch_does_not_have_are_refused(groups: int) -> None:
    net = network("vectors")
    with pytest.raises(SpecError, match="groups"), grouped_batch_norm(net, groups):
        net(batch("vectors"))


def test_input_of_a_wrong_dimension_is_refused_as_torch_does() -> None:
    net = network("images")
    with grouped_batch_norm(net, 2), pytest.raises(ValueError, match="expected 4D input"):
        net(torch.zeros(4, 3))


def test_on_a_cuda_device_torchs_own_module_takes_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.training.norm.process_count", lambda: 2)
    net = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.BatchNorm1d(3)))
    state = net.state_dict()
    synchronize_batch_norm(net, "cuda")
    assert isinstance(net[1][0], nn.SyncBatchNorm)
    assert all(net.state_dict()[name].data_ptr() == value.data_ptr() for name, value in state.items())
    with pytest.raises(ValueError, match="not on a single batch norm"):
        synchronize_batch_norm(nn.BatchNorm1d(3), "cuda")
