"""Networks."""

from nanogan.models import conditional, dcgan

__all__ = ["conditional", "dcgan"]
