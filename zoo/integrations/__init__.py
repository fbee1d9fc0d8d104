"""Rerankers in the shapes that other frameworks call. Each module needs the framework it is named after, and nothing else does.

Each adapter takes a ``zoo.Reranker`` that is open already, which several may share and the caller closes, or a model's name.
"""
