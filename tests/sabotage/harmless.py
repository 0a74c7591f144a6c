"""Mistakes made by rule that change nothing that anyone could notice: their titles, and why."""

HARMLESS = {
    "batchnorm_backward: if need_dw or train:  ->  if True or train:": "in eval mode two sums are computed and dropped",
    "embedding_backward: dw = array_module(w).zeros_like(w)  ->  dw = -array_module(w).zeros_like(w)": "-0 is 0",
    "glu_backward: dx = xp.empty_like(x)  ->  dx = -xp.empty_like(x)": "both halves are written",
    "gradient_penalty: u = g / (norm + (norm == 0))  ->  u = g / (norm - (norm == 0))": "where it matters, g is 0",
    "Residual.tangent: return (add(v, fv), caches)  ->  return (add(fv, v), caches)": "it is a sum",
    "ConditionalDCGAN.step: self.g.backward(dseen[:, :fake.shape[1]], g_cache, need_dx=False)  ->  "
    "self.g.backward(dseen[:, :real.shape[1]], g_cache, need_dx=False)": "both have the images' channels",
    "ConditionalDCGAN.step: real = real.reshape(len(real), -1, 1, 1)  ->  "
    "real = real.reshape(len(real), -2, 1, 1)": "NumPy takes any negative size for the rest",
    "CycleGAN.step: loss_identity = 0 * back_loss_a  ->  loss_identity = 0 * back_loss_b": "0 either way",
    "DCGAN.step: *earlier, last = zip(reals, zs, noises, strict=True)  ->  "
    "*earlier, last = zip(reals, zs, noises, strict=False)": "draw makes three lists of one length",
    "WGAN.step: for real, z in zip(reals, zs, strict=True):  ->  for real, z in zip(reals, zs, strict=False):": "draw "
    "makes two lists of one length",
    "WGANGP.step: for real, z, e in zip(reals, zs, es, strict=True):  ->  "
    "for real, z, e in zip(reals, zs, es, strict=False):": "draw makes three lists of one length",
    "Sequential.tangent: for layer, cache_of_x in zip(self.layers, cache, strict=True):  ->  "
    "for layer, cache_of_x in zip(self.layers, cache, strict=False):": "forward made a cache for each layer",
    "Concat.tangent: pairs = zip(self.layers, caches, strict=True)  ->  "
    "pairs = zip(self.layers, caches, strict=False)": "forward made a cache for each layer",
    "Concat.tangent: ...or layer, layer_cache in pairs), strict=True)  ->  "
    "...or layer, layer_cache in pairs), strict=False)": "every tangent is a pair",
}
