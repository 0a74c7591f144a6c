"""The latent space: walks between images, arithmetic with z, and the z that generates a given image."""
