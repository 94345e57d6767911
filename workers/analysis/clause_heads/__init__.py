"""Trained clause heads: which sentence holds which of the 41 kinds of clause that CUAD's lawyers labelled."""
