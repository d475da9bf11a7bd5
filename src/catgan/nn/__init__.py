"""Building blocks that know tensors only: no GANs, no scales, no configurations."""
