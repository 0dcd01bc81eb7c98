#!/bin/sh
# click 8.3.0 and 8.3.1: an option whose value is optional (is_flag=False, flag_value=..., and a default) is no longer so: it
# takes the next word, even "--", which ends the options everywhere else (pallets/click issue 3084; mended in 8.3.2).
# click 8.3.0 to 8.5.1: a flag with flag_value="..." and default=False has the value "False", a text, which is true.
# Shown beside 8.2.1, which has neither. minicontainer's own optional values (cli/options.py) use neither of the two.
# Tried with Python 3.11. Needs the network; ends with 0 where what is seen is what stands here.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

cat > "$place/program.py" <<'END'
import click

@click.command()
@click.option("--name", is_flag=False, flag_value="FLAG", default="DEFAULT")
@click.option("--loud", flag_value="loud", default=False)
@click.argument("words", nargs=-1)
def program(name, loud, words):
    print(f"name={name!r} loud={loud!r} words={words!r}")

program()
END

status=0
see() { # VERSION EXPECTED: what the program prints of "--name -- word"
    python3 -m venv "$place/$1"
    "$place/$1/bin/pip" --quiet --disable-pip-version-check install "click==$1"
    seen=$("$place/$1/bin/python" "$place/program.py" --name -- word 2>&1) || true
    echo "click $1: $seen"
    [ "$seen" = "$2" ] || { echo "    but was: $2"; status=1; }
}
see 8.2.1 "name='FLAG' loud=None words=('word',)"
see 8.3.0 "name='--' loud='False' words=('word',)"
see 8.3.1 "name='--' loud='False' words=('word',)"
see 8.3.2 "name='FLAG' loud='False' words=('word',)"
see 8.5.1 "name='FLAG' loud='False' words=('word',)"
exit $status
