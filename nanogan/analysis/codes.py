"""Near-duplicates by semantic hashing: an autoencoder's code, cut to one bit a unit; equal codes are near-duplicates.

    picture 32 x 32 x 3 -> Linear, 128 -> ReLU -> Dropout -> Linear, 3072 -> the picture again
                                      > 0: one bit each, 16 bytes a picture

The autoencoder sees pictures with noise, is asked for those without, and learns to overlook small changes. Source: A.
Radford et al., arXiv:1511.06434, section 4.1, who removed 275,000 near-duplicates from LSUN's bedrooms so.
"""
