"""Networks from and to PyTorch's files: ``python -m nanogan.convert IN OUT``."""

from nanogan.convert.torch_files import convert, read_safetensors, read_torch

__all__ = ["convert", "read_safetensors", "read_torch"]
