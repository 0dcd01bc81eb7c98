"""Containers as files: a program of ours with a plan in it, which starts the container without Python."""
