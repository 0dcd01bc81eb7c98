"""Containers that are ready up to the exec, and wait for a program."""
