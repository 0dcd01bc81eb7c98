"""Which containers there are: their names, and who holds a claim on each."""
