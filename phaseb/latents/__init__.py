"""From observations to z_V: the contrastive encoder, its standardisation, the state decoder, latent actions."""
