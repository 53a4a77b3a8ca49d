"""Clusters of episodes in latent space, and what each is worth."""
