"""Networks.

A file may end with EXAMPLES for the gradient checks: {name: (a function that makes a small network, its random input)}.
"""

from nanogan.models import conditional, dcgan

__all__ = ["conditional", "dcgan"]
