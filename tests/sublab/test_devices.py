"""Claims about where arrays lie."""

import numpy as np
import pytest

from sublab import devices


def test_replicas_on_cpu_devices_share_one_copy_in_memory(mesh):
    assert mesh.size == 2
    array = np.ones((1000, 784), np.float32)
    shards = devices.replicate(array, mesh).addressable_shards
    assert len({shard.data.unsafe_buffer_pointer() for shard in shards}) == 1


@pytest.mark.parametrize("size", [1, 2, 7])
def test_what_is_spread_and_gathered_comes_back(mesh, size):
    tree = {"a": np.arange(size * 3.0).reshape(size, 3), "b": np.arange(size)}
    back = devices.gather(devices.spread(tree, mesh), size)
    for name, leaf in tree.items():
        np.testing.assert_array_equal(back[name], leaf)


def test_a_device_count_set_before_stays(mesh):
    devices.use_every_core()
    assert devices.population_mesh().size == mesh.size


def test_one_cpu_device_trains_two_models_at_a_time_and_several_one_each(mesh):
    assert devices.lanes(mesh) == 1
    assert devices.lanes(devices.population_mesh(list(mesh.devices.flat)[:1])) == 2
