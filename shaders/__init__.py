"""Compute shaders (``*.wgsl``), their catalog, and the Python that prepares their tables and dispatches them."""
