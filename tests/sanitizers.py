"""How C sources are compiled to be fuzzed: whatever they do wrong ends them."""

SANITIZED = [
    "cc",
    "-g",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-Wall",
    "-Wextra",
    "-Werror",
]
SANITIZED += ["-Wno-missing-field-initializers"]
