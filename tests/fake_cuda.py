"""A GPU that is not there: code runs on tensors without values that take themselves for CUDA ones.

Tensors on different devices do not mix, and whatever would wait for the GPU, such as `.item()`, raises
DataDependentOutputException. Without a driver, memory cannot be pinned, and the autograd engine does not go backward
over such tensors (PyTorch 2.14 asks the driver for a context): `backward` gives a gradient to every parameter that the
loss depends on, and does not run the backward pass.
"""

from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

DRAWN = {"item": 0.5, "__float__": 0.5, "__int__": 1, "__bool__": False}  # what values on the host are taken for


@contextmanager
def fake_cuda():
    """Pretends that there is a GPU; tensors that are made meanwhile have no values, on the host neither."""
    torch._C._ensureCUDADeviceGuardSet()
    with (
        mock.patch("torch.cuda.is_available", return_value=True),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        mock.patch.object(FakeTensorMode, "avoid_device_init", True),
        mock.patch.object(nn.Module, "to", _moved),
        mock.patch("torch.distributions.Distribution._validate_args", False),
        mock.patch.object(Tensor, "pin_memory", lambda tensor: tensor),
        mock.patch.object(Tensor, "backward", _backward),
        mock.patch("torch.nn.functional.scaled_dot_product_attention", _attention),
        _host_values(),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        yield


@contextmanager
def saved_bytes(apart_from=()):
    """Counts what autograd keeps, each storage once, into the list that it yields; some tensors are left out."""
    storages, total = {}, [0]
    own = {tensor.untyped_storage()._cdata for tensor in apart_from}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own and storage._cdata not in storages:
            storages[storage._cdata] = storage  # held, so that no address is used twice
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total


@contextmanager
def _host_values():
    with mock.patch.multiple(Tensor, **{name: _read(name, value) for name, value in DRAWN.items()}):
        yield


def _read(name, value):
    original = getattr(Tensor, name)
    return lambda tensor: value if tensor.device.type == "cpu" else original(tensor)


def _attention(query, key, value):
    """Calls the kernel that a GPU with tensor cores takes; to choose one, PyTorch asks the driver which GPU it is."""
    if query.dtype == torch.float32:
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]


def _moved(module, device):
    """Replaces parameters and buffers, those that modules share once."""
    made = {}
    for part in module.modules():
        for group in (part._parameters, part._buffers):
            for name, tensor in group.items():
                if tensor is not None and tensor.device.type != torch.device(device).type:
                    made.setdefault(tensor, _like(tensor, device))
                    group[name] = made[tensor]
    return module


def _like(tensor, device):
    empty = torch.empty_like(tensor, device=device)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _backward(loss):
    assert loss.device.type == "cuda"
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
        if hasattr(node, "variable"):
            added = torch.empty_like(node.variable)
            node.variable.grad = added if node.variable.grad is None else node.variable.grad + added
