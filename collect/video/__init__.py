"""Video files: finding them, decoding frames in the order in which they are shown, sampling a clip."""
