"""The program of a container: confined, executed, and why that failed."""
