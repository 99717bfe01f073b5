"""The demo's tiny PerceptionLM: its network, its training, its held-out accuracy."""
