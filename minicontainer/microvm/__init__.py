"""Machines: a root file system and a program, as a container has them, below a Linux kernel of their own."""
