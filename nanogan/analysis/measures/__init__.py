"""Numbers: scores of generators, nearest neighbours, near-duplicates, the 1-NN score."""
