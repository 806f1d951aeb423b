"""Runs as files: reading and drawing them. Nothing here imports torch or Detectron2."""
