#!/bin/sh
# What pip makes of a script of a package, where the package says "#!python -I -S" in its first line (setuptools' script-files):
# pip writes the path of its Python there, and drops the options, up to its current release; the wheel has them. Where that
# path holds a blank, the kernel cannot start the script: pip writes a form that can (#!/bin/sh, '''exec' "/path") for entry
# points only. And the script that pip itself writes for an entry point imports re up to release 25.1, which takes a fourth of
# the time of a short command; so minicontainer's is a script of its own (bin/minicontainer), without options.
# Tried with Python 3.11. Needs the network; ends with 0 where what is seen is what stands here.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir "$place/project"
cd "$place/project"
printf '#!python -I -S\nprint("script")\n' > own
printf 'def main(): print("entry point")\n' > program.py
cat > pyproject.toml <<'END'
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "program"
version = "1"
scripts = {point = "program:main"}
[tool.setuptools]
script-files = ["own"]
py-modules = ["program"]
END

status=0
see() { # WHAT SEEN EXPECTED
    echo "$1: $2"
    [ "$2" = "$3" ] || { echo "    but was: $3"; status=1; }
}
install() { # VENV PIP
    python3 -m venv "$1"
    "$1/bin/python" -m pip --quiet --disable-pip-version-check install "pip==$2"
    "$1/bin/python" -m pip --quiet --disable-pip-version-check install --no-deps "$place"/*.whl
}
python3 -m venv "$place/build"
"$place/build/bin/pip" --quiet --disable-pip-version-check wheel --no-deps -w "$place" .
see "in the wheel" "$(python3 -m zipfile -e "$place"/*.whl "$place/wheel"; head -1 "$place"/wheel/*.data/scripts/own)" "#!python -I -S"
for pip in 23.2.1:1 25.1.1:1 25.3:0; do
    venv=$place/${pip%:*}
    install "$venv" "${pip%:*}"
    see "pip ${pip%:*}, first line" "$(head -1 "$venv/bin/own" | sed "s|$place|...|")" "#!.../${pip%:*}/bin/python"
    see "pip ${pip%:*}, lines of an entry point that import re" "$(grep -c 'import re' "$venv/bin/point")" "${pip#*:}"
done
install "$place/a b" 25.3
see "in a path with a blank, entry point" "$("$place/a b/bin/point" 2>&1)" "entry point"
see "in a path with a blank, script" "$("$place/a b/bin/own" 2>&1 | grep -c 'script$')" 0
exit $status
