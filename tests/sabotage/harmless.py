"""Mistakes made by rule that change nothing that anyone could notice: their titles, and why."""

HARMLESS = {
    "batchnorm_backward: if need_dw or train:  ->  if True or train:": "in eval mode two sums are computed and dropped",
    "embedding_backward: dw = array_module(w).zeros_like(w)  ->  dw = -array_module(w).zeros_like(w)": "-0 is 0",
}
