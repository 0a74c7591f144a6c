"""Data sets: where each is kept or how it is drawn, as uint8 images (N, H, W, C) and labels."""
