"""Pairs in, scores out: batching, the threads of the stages, and sessions in child processes."""
