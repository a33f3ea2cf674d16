"""Pillow and PyAV on one side, pictures and frames on the other."""
