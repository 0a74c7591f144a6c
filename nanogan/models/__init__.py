"""Networks."""

from nanogan.models import dcgan

__all__ = ["dcgan"]
