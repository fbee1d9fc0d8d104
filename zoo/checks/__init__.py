"""Measurements of this machine, of its devices, and of what a lower precision does to rankings."""
