"""Every way to train a sweep's members that the benchmark knows, by name."""

from sweep.bench import loops, pytorch
from sweep.bench.ensemble import ensemble
from sweep.bench.products import limit
from sweep.bench.way import Way

OURS = "fathom"
LIMIT = "products alone"

WAYS: dict[str, Way] = {
    OURS: ensemble,
    "unrolled": loops.unrolled,
    "scanned": loops.scanned_layers,
    "vmapped seeds": loops.vmapped_seeds,
    "padded": loops.padded,
    "torch": pytorch.eager,
    "torch compiled": pytorch.compiled,
    LIMIT: limit,
}
