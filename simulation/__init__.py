"""Data made here, for when the published data cannot be had."""
