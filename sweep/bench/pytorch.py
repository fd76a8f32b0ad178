"""The usual loop in PyTorch: one MLP after the other, eager or compiled."""

import os
import time
from collections.abc import Callable
from importlib import import_module
from math import prod
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from nets import Network
from nets.blocks import Block
from sweep.bench.batches import Batches
from sweep.bench.way import Start, Trainer, Workload


def eager(workload: Workload) -> Start:
    """Modules, autograd and SGD over lists of tensors, as PyTorch runs them by default."""
    return _start(workload, lambda model: model)


def compiled(workload: Workload) -> Start:
    """The same, forward and backward through `torch.compile`."""
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # or only the first start would be a cold one
    torch: Any = import_module("torch")
    # One recompilation a depth is meant to be.
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 10_000
    return _start(workload, torch.compile)


def _start(workload: Workload, transform: Callable[[Any], Any]) -> Start:
    torch: Any = import_module("torch")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    networks = [member.build(workload.structure) for member in workload.members]
    models = [_twin(torch, network, workload.structure.activation).to(device) for network in networks]
    batches = Batches(workload, [[member] for member in workload.members], stacked=False)
    return lambda: _Torch(torch, workload, models, batches, transform)


class _Torch(Trainer):
    def __init__(self, torch: Any, workload: Workload, models: list[Any], batches: Batches, transform: Any):
        self._torch, self._batches, self._features = torch, batches, prod(workload.structure.image_shape)
        self._device = next(models[0].parameters()).device
        self._precision = workload.precision
        config = workload.config
        self._optimizers = [
            torch.optim.SGD(model.parameters(), lr=config.learning_rates[0], momentum=config.momentum, foreach=True)
            for model in models
        ]
        self._models = [transform(model) for model in models]
        started = time.perf_counter()
        if any(model is not given for model, given in zip(self._models, models, strict=True)):
            for model, optimizer, batch in zip(self._models, self._optimizers, self._inputs(0), strict=True):
                self._loss(model, *batch).backward()
                optimizer.zero_grad()
        self.compile_seconds = time.perf_counter() - started

    def _inputs(self, step: int) -> list[tuple[Any, Any]]:
        def tensor(array: jax.Array) -> Any:
            return self._torch.from_dlpack(array).to(self._device)

        return [(tensor(x).reshape(-1, self._features), tensor(labels).long()) for x, labels in self._batches(step)]

    def _loss(self, model: Any, x: Any, labels: Any) -> Any:
        if self._precision is None:
            return self._torch.nn.functional.cross_entropy(model(x), labels)
        with self._torch.autocast(self._device.type, getattr(self._torch, self._precision)):
            logits = model(x)
        return self._torch.nn.functional.cross_entropy(logits.float(), labels)

    def take(self, first: int, count: int) -> Float[np.ndarray, "step member"]:
        losses = []
        for index in range(first, first + count):
            for model, optimizer, batch in zip(self._models, self._optimizers, self._inputs(index), strict=True):
                loss = self._loss(model, *batch)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.detach())
        return self._torch.stack(losses).reshape(count, -1).cpu().numpy()


def _twin(torch: Any, network: Network, activation: str) -> Any:
    """The same MLP with the same weights."""
    functional = torch.nn.functional
    phi = {
        "relu": functional.relu,
        "tanh": torch.tanh,
        "gelu": lambda x: functional.gelu(x, approximate="tanh"),
        "silu": functional.silu,
        "linear": lambda x: x,
    }[activation]
    stem, blocks, head = network.sections.values()
    layers: Any = blocks.layers  # pyright: ignore[reportAttributeAccessIssue]
    skip = float(np.max(layers.skip[...]))

    def linear(state: Any) -> Any:
        kernel = np.array(state["kernel"])
        module = torch.nn.Linear(*kernel.shape, bias="bias" in state, dtype=torch.as_tensor(kernel).dtype)
        with torch.no_grad():
            module.weight.copy_(torch.as_tensor(kernel.T))
            if "bias" in state:
                module.bias.copy_(torch.as_tensor(np.array(state["bias"])))
        return module

    def norm(state: Any, like: Any) -> Any:
        if "norm" not in state or "scale" not in state["norm"]:
            return torch.nn.Identity()
        module = torch.nn.BatchNorm1d(state["norm"]["scale"].shape[0], eps=1e-5, momentum=0.1)
        return module.to(like.weight.dtype)

    def parts(module: nnx.Module, index: int | None = None) -> tuple[Any, Any]:
        state = nnx.as_pure(nnx.state(module, nnx.Param))
        if index is not None:
            state = jax.tree.map(lambda leaf: leaf[index], state)
        of_linear = linear(state["linear"])
        return of_linear, norm(state, of_linear)

    activates_first = isinstance(layers, Block) and layers.activates_first

    class Layer(torch.nn.Module):
        def __init__(self, linear: Any, norm: Any, skip: float):
            super().__init__()
            self.linear, self.norm, self.skip = linear, norm, skip

        def forward(self, h: Any) -> Any:
            if activates_first:
                y = self.linear(phi(self.norm(h)))
                return y + self.skip * h if self.skip else y
            y = self.norm(self.linear(h))
            return phi(y + self.skip * h if self.skip else y)

    class Edge(torch.nn.Module):
        def __init__(self, linear: Any, norm: Any, is_stem: bool):
            super().__init__()
            self.linear, self.norm, self.is_stem = linear, norm, is_stem

        def forward(self, h: Any) -> Any:
            if self.is_stem:
                h = self.linear(h)
                return h if activates_first else phi(self.norm(h))
            return self.linear(phi(self.norm(h)) if activates_first else h)

    return torch.nn.Sequential(
        Edge(*parts(stem), is_stem=True),
        *(Layer(*parts(layers, i), skip) for i in range(network.block_count)),
        Edge(*parts(head), is_stem=False),
    )
