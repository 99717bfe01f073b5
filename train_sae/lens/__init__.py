"""SAELens's folder format, read and written."""
