"""Fast paths for the CPU, in NumPy: threads over chunks that stay in cache, and Winograd's convolution.

Each file registers what it serves (:mod:`nanogan.dispatch`). What none serves is computed by :mod:`nanogan.ops`.
"""

from nanogan.fast.cpu.memory import keep_freed_memory

keep_freed_memory()
