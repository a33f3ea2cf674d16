"""What a tile holds: latents, latents of inter frames, or tokens."""
