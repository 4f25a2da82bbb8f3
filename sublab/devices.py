"""The devices a population is spread over: one mesh axis named `population`."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

AXIS = "population"
# XLA reads host memory in place, for every CPU device at once, only where it is aligned so.
_ALIGNMENT = 64


def cores() -> int:
    """How many processor cores this process may use."""
    # Where there is no affinity (macOS), a process may use them all.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_every_core() -> None:
    """Makes one JAX CPU device per core of this process; has no effect on accelerators.

    Call it once, before JAX runs anything; a number that was set before (JAX_NUM_CPU_DEVICES)
    stays. One model a core keeps a model's step in that core's cache: on two cores it was 10 %
    faster than one device that splits every product over both.

    Raises:
        RuntimeError: JAX has already started its devices.
    """
    if jax.config.jax_num_cpu_devices < 1:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_num_cpu_devices", cores())


def population_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the single axis `population` over `devices` (default: all local devices)."""
    return Mesh(np.array(jax.local_devices() if devices is None else devices), (AXIS,))


def lanes(mesh: Mesh) -> int | None:
    """How many models a device of `mesh` trains at a time; None: all that it holds.

    An accelerator is filled by many models at once. A CPU core is fastest with as few as keep it
    busy, since their parameters and activations then stay in its cache.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return None
    return 1 if mesh.size > 1 else 2


def replicate(array: Array | np.ndarray, mesh: Mesh) -> Array:
    """`array` on every device of `mesh`; on CPU devices one copy in memory serves all."""
    if mesh.devices.flat[0].platform == "cpu":
        array = _aligned(np.asarray(array))
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec()))


def replicated_shapes(tree: Any, mesh: Mesh) -> Any:
    """What `replicate` makes of arrays of such shapes and types, to compile for.

    Args:
        tree: a pytree of what has a shape and a dtype.
        mesh: the devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def spread(tree: Any, mesh: Mesh) -> Any:
    """A pytree of arrays with a leading population axis, cut along that axis over `mesh`.

    The axis is first extended to a multiple of the number of devices by repeating models from
    the start; `gather` drops them again.
    """
    size = jax.tree.leaves(tree)[0].shape[0]
    rows = np.arange(-(-size // mesh.size) * mesh.size) % size
    padded = jax.tree.map(lambda leaf: leaf[rows] if len(rows) != size else leaf, tree)
    return jax.device_put(padded, NamedSharding(mesh, PartitionSpec(AXIS)))


def gather(tree: Any, size: int) -> Any:
    """The first `size` models of what `spread` cut up, as numpy arrays on the host."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:size], tree)


def over_population(
    one_model: Callable[..., Any],
    mesh: Mesh,
    cut: tuple[Any, ...],
    shared: tuple[Any, ...],
    large: bool = False,
) -> Any:
    """one_model(*a model's slice of cut, *shared) for every model, on the device that holds it.

    Args:
        one_model: what is done.
        mesh: the devices.
        cut: pytrees with a leading population axis.
        shared: the same for all models.
        large: whether a model alone on its device is no batch of one. In a batch, the axis of a
            decoder is moved about, a copy of all its weights at every step; small networks are
            some hundredths faster in it.
    """

    def on_device(cut: tuple[Any, ...], shared: tuple[Any, ...]) -> Any:
        here = jax.tree.leaves(cut)[0].shape[0]
        at_a_time = lanes(mesh) or here
        size = None if large and min(at_a_time, here) == 1 else at_a_time
        return jax.lax.map(lambda model: one_model(*model, *shared), cut, batch_size=size)

    axis = PartitionSpec(AXIS)
    return jax.shard_map(
        on_device, mesh=mesh, in_specs=(axis, PartitionSpec()), out_specs=axis, check_vma=False
    )(cut, shared)


def _aligned(array: np.ndarray) -> np.ndarray:
    if array.ctypes.data % _ALIGNMENT == 0 and array.flags.c_contiguous:
        return array
    buffer = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    aligned = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    aligned[...] = array
    return aligned
