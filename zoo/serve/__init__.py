"""``zoo serve``: rerankers over HTTP, in every form that clients speak.

A request is read by its dialect (``dialects``), let in and scored by a ``zoo.Reranker`` that all requests share (``scoring``,
``models``), and answered by its dialect again. ``app`` puts the parts together, ``server`` runs them.
"""
