"""Inference: images and an instruction in, proposals out."""
