"""Where the time of a block goes, by torch's profiler: the shares of the benchmarks of the engine."""

from collections import Counter
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

# the beginnings of the names of torch's operations, which call one another: each has its own time here
KINDS = {
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::matmul", "aten::linear", "mkldnn::"),
    "attention": ("aten::_scaled_dot_product", "aten::_flash_attention"),
    "softmax of the head": ("aten::_log_softmax", "aten::exp", "aten::log", "aten::amax", "aten::linalg_vecdot"),
    "optimizer": ("aten::_fused_adam",),
    "gates, norms and other elementwise work": ("aten::mul", "aten::add", "aten::silu", "aten::mean", "aten::pow"),
    "copies and casts": ("aten::copy_", "aten::cat", "aten::clone", "aten::_to_copy", "aten::index"),
}
_LEAST = 0.01  # a kind of its own for an operation of this share


def shares_of(block: Callable[[], object]) -> dict[str, float]:
    """Of the CPU time of one run, largest first; what is below a hundredth and of no kind is `the rest`."""
    with profile(activities=[ProfilerActivity.CPU]) as measured:
        block()
    times: Counter[str] = Counter()
    for event in measured.key_averages():
        times[kind_of(event.key)] += event.self_cpu_time_total  # type: ignore[assignment] # microseconds, a float
    total = sum(times.values())
    found: Counter[str] = Counter()
    for name, time in times.items():
        found[name if name in KINDS or time >= _LEAST * total else "the rest"] += time
    return {name: time / total for name, time in found.most_common()}


def kind_of(operation: str) -> str:
    return next((kind for kind, names in KINDS.items() if operation.startswith(names)), operation)
