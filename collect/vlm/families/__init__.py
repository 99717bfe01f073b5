"""One adapter per family of video VLMs."""
