"""The compiler command for fuzzed C sources: any error that a sanitizer detects ends the program."""

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
