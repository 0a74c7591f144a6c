"""What a trained GAN knows: the DCGAN paper's experiments and some of its successors', each a function and an example.

Functions take networks and arrays and return pictures and numbers; the scripts in ``examples/`` read checkpoints and
data, and write PNG or GIF files and a JSON file of the numbers. What each showed is in ``docs/experiments.md``.

    latent/     walks, arithmetic with z, inversion: what lies between and behind images
    inside/     what D's filters see, D's features, forgetting, spectra
    measures/   scores, nearest neighbours, near-duplicates, the 1-NN score
    judges/     classifiers of classes and of attributes, which look where no person does
    theory      GANs on densities that are known
    networks    images brought to a network, its first layers

Nothing here imports ``nanogan.training`` or ``nanogan.recipes``.
"""
