"""Somebody else's package on a bad day."""

raise RuntimeError("the licence server does not answer")
