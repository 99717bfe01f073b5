"""Training in several processes: over tokens or over latents."""
