"""Ways to compute batch norm, each as the four timed parts of one workload."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from kernels.batchnorm.api import Implementation, batch_norm
from kernels.batchnorm.chips import chip_here
from kernels.bench.workloads import Workload

Inputs = tuple[Any, ...]
PARTS = ("forward", "keeping", "backward", "both")


@dataclass(frozen=True)
class Ready:
    """A contestant compiled for one workload.

    Attributes:
      parts: by name of part, a function of the inputs that starts the work and returns something to wait for.
      compile_seconds: of all parts, or NaN where compiling cannot be told apart.
      temporary: bytes of temporary memory of "both", or NaN where unknown.
      wait: returns when what a part returned, and all before it, is done.
    """

    parts: dict[str, Callable[[Inputs], Any]]
    compile_seconds: float = float("nan")
    temporary: float = float("nan")
    wait: Callable[[Any], Any] = jax.block_until_ready


def inputs(workload: Workload, key: Array) -> Inputs:
    """Fresh `(x, scale, bias, residual or None, cotangent of y)`."""
    keys = jax.random.split(key, 5)
    vector = (workload.shape[0], workload.shape[-1]) if workload.members else workload.shape[-1:]
    x, residual, cotangent = (jax.random.normal(k, workload.shape, workload.dtype) for k in keys[:3])
    scale, bias = (jax.random.normal(k, vector) for k in keys[3:])
    return x + 1, scale, bias, residual if workload.residual else None, cotangent


def _fathom(
    implementation: Implementation, relu: bool, x: Array, scale: Array, bias: Array, residual: Array | None
) -> Array:
    activation = "relu" if relu else None
    return batch_norm(x, scale, bias, residual=residual, activation=activation, implementation=implementation)[0]


def _flax(relu: bool, x: Array, scale: Array, bias: Array, residual: Array | None) -> Array:
    module = nnx.eval_shape(lambda: nnx.BatchNorm(x.shape[-1], dtype=x.dtype, rngs=nnx.Rngs(0)))
    zeros = jnp.zeros(x.shape[-1])
    nnx.update(module, nnx.State({"scale": scale, "bias": bias, "mean": zeros, "var": zeros + 1}))
    y = module(x)
    y = y if residual is None else y + residual
    return jax.nn.relu(y) if relu else y


def _in_jax(function: Callable[..., Array], workload: Workload, example: Inputs) -> Ready:
    of = partial(function, workload.relu)
    if workload.members:
        of = jax.vmap(of, in_axes=(0, 0, 0, 0 if workload.residual else None))

    def keeping(x: Array, scale: Array, bias: Array, residual: Array | None) -> Any:
        return jax.vjp(of, x, scale, bias, residual)

    def both(x: Array, scale: Array, bias: Array, residual: Array | None, cotangent: Array) -> Any:
        y, pull = keeping(x, scale, bias, residual)
        return y, pull(cotangent)

    started = time.perf_counter()
    forward = jax.jit(of).lower(*example[:4]).compile()
    keep = jax.jit(keeping).lower(*example[:4]).compile()
    kept = keep(*example[:4])[1]
    backward = jax.jit(lambda pull, cotangent: pull(cotangent)).lower(kept, example[4]).compile()
    together = jax.jit(both).lower(*example).compile()
    seconds = time.perf_counter() - started
    pulls: dict[int, Any] = {}

    def run_backward(inputs: Inputs) -> Any:
        if id(inputs) not in pulls:  # in the warm-up, before the clock starts
            pulls[id(inputs)] = keep(*inputs[:4])[1]
        return backward(pulls[id(inputs)], inputs[4])

    parts = {
        "forward": lambda inputs: forward(*inputs[:4]),
        "keeping": lambda inputs: keep(*inputs[:4]),
        "backward": run_backward,
        "both": lambda inputs: together(*inputs),
    }
    memory = together.memory_analysis()
    return Ready(parts, seconds, float("nan") if memory is None else float(memory.temp_size_in_bytes))


def _in_torch(compiled: bool, workload: Workload, example: Inputs) -> Ready:
    torch = import_module("torch")
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"

    def one(x: Any, scale: Any, bias: Any, residual: Any) -> Any:
        # Features are PyTorch's second axis; `channels_last` keeps them last in memory.
        y = torch.nn.functional.batch_norm(x.movedim(-1, 1), None, None, scale, bias, training=True).movedim(1, -1)
        y = y if residual is None else y + residual
        return torch.relu(y) if workload.relu else y

    def of(x: Any, scale: Any, bias: Any, residual: Any) -> Any:
        if not workload.members:
            return one(x, scale, bias, residual)
        members = range(len(x))
        return torch.stack([one(x[i], scale[i], bias[i], None if residual is None else residual[i]) for i in members])

    if compiled:
        # A backward pass is timed many times on one forward pass.
        config: Any = import_module("torch._functorch.config")
        config.donated_buffer = False
        import_module("torch._dynamo").reset()  # it gives up on a function that it has met in many shapes
    function = torch.compile(of) if compiled else of
    converted: dict[int, Any] = {}

    def tensors(inputs: Inputs) -> Any:
        if id(inputs) not in converted:
            dtype = getattr(torch, workload.dtype)
            large = [None if a is None else torch.tensor(jax.device_get(a.astype(float))) for a in inputs]
            moved = [None if t is None else t.to(device, dtype if t.ndim == x_ndim else torch.float32) for t in large]
            for tensor in moved[:4]:
                if tensor is not None:
                    tensor.requires_grad_()
            with torch.enable_grad():
                converted[id(inputs)] = (moved, function(*moved[:4]))
        return converted[id(inputs)]

    x_ndim = len(workload.shape)

    def forward(inputs: Inputs) -> Any:
        with torch.no_grad():
            return function(*tensors(inputs)[0][:4])

    def gradients(y: Any, moved: Any) -> Any:
        of_what = [t for t in moved[:4] if t is not None]
        return torch.autograd.grad(y, of_what, moved[4], retain_graph=True)

    def backward(inputs: Inputs) -> Any:
        moved, y = tensors(inputs)
        return gradients(y, moved)

    def both(inputs: Inputs) -> Any:
        moved, _ = tensors(inputs)
        y = function(*moved[:4])
        return y, gradients(y, moved)

    def wait(result: Any) -> None:
        del result
        if device == "cuda":
            torch.cuda.synchronize()

    def keeping(inputs: Inputs) -> Any:
        return function(*tensors(inputs)[0][:4])

    return Ready({"forward": forward, "keeping": keeping, "backward": backward, "both": both}, wait=wait)


def _copy(workload: Workload, example: Inputs) -> Ready:
    """One read and one write of memory, in place: the limit. New memory would cost a CPU more than the copy itself."""
    del workload
    negative = jax.jit(jnp.negative, donate_argnums=0).lower(example[0]).compile()
    own: dict[int, Array] = {}

    def copy(inputs: Inputs) -> Array:
        x = own.pop(id(inputs)) if id(inputs) in own else jnp.copy(inputs[0])
        own[id(inputs)] = negative(x)
        return own[id(inputs)]

    return Ready({"forward": copy})


CONTESTANTS: dict[str, Callable[[Workload, Inputs], Ready]] = {
    "copy": _copy,
    "xla": partial(_in_jax, partial(_fathom, "xla")),
    "pallas": partial(_in_jax, partial(_fathom, "pallas")),
    "reference": partial(_in_jax, partial(_fathom, "reference")),
    "flax": partial(_in_jax, _flax),
    "torch": partial(_in_torch, False),
    "torch.compile": partial(_in_torch, True),
}


def missing(name: str) -> str | None:
    """Why a contestant cannot take part here, or None."""
    if name == "pallas":
        try:
            chip_here()
        except ValueError as error:
            return str(error)
    if name.startswith("torch") and find_spec("torch") is None:
        return "torch is not installed"
    return None
