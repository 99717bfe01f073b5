"""`video-sae plan`: tokens, bytes and hours of a collection before anything is spent."""
