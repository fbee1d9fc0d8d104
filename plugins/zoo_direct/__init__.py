"""ONNX graphs written from a checkpoint's config.json and the headers of its safetensors files: no torch, transformers, optimum or onnx.

The weights stay where they are: each initializer of the graph is external data, a range of bytes of the checkpoint's own file.
``families.supports`` says from config.json alone whether a graph is known, ``build.write_graph`` writes it, and ``proof.expected``
computes the same logits in numpy, independently of the graph.
"""
