"""`video-sae download`: Perception Test's files into one folder, resumable and checked."""
