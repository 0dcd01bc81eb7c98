"""The program of a container: confines and executes it, and explains a failed exec."""
