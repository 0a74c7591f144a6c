"""Images in files: grids, PNG, animated GIF, plots."""

from nanogan.images.grids import from_uint8, grid, resize, save_gif, save_grid, save_png, to_pillow, to_uint8

__all__ = ["from_uint8", "grid", "resize", "save_gif", "save_grid", "save_png", "to_pillow", "to_uint8"]
