"""A stage's folder: its config and lock, begin and resume, tables, JSON, checksums, paths that stay inside."""
