"""Readers that turn untrusted files into text with exact offsets, each file in a subprocess of its own."""
