"""Run folders, their locks and their processes."""
