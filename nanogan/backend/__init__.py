"""Devices and arrays: NumPy on the CPU, CuPy on the GPU.

CuPy is imported here and in ``fast/gpu`` alone, and only when a GPU is asked for. Everything else writes
``xp = array_module(x)`` and then the same line for both libraries.
"""

from nanogan.backend.arrays import all_to_numpy, array_module, channels_last, copy_into, seeded_rng, to_numpy
from nanogan.backend.devices import Device, device_of, get_device, to_device
from nanogan.backend.distances import squared_distance_blocks, squared_distances
from nanogan.backend.pinned import copied_ahead
from nanogan.backend.precision import PRECISIONS, add_product, matmul_precision, narrow, product, set_matmul_precision

__all__ = [
    "PRECISIONS", "Device", "add_product", "all_to_numpy", "array_module", "channels_last", "copied_ahead", "copy_into",
    "device_of", "get_device", "matmul_precision", "narrow", "product", "seeded_rng", "set_matmul_precision",
    "squared_distance_blocks", "squared_distances", "to_device", "to_numpy",
]  # fmt: skip
