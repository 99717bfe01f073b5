"""How good an SAE is: metrics on held-out tokens, and SAEs side by side."""
