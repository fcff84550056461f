#!/bin/sh
# Install the project with Lava and the test tools into .venv, on Python 3.10. Run by make, from the repository root.
#
# PYTHON, if set, names the interpreter. `.venv/.installed` is written last; while an installation is under way
# `.venv/.installing` exists, so that one cut short is found the next time and started over.
set -eu

venv=.venv
python="$venv/bin/python"

is_310() { "$@" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' >/dev/null 2>&1; }

# The first candidate that really runs as 3.10 (a pyenv shim may exist and fail) and can make environments (Debian's
# python3.10 cannot without python3.10-venv). If PYTHON is set, it is the only candidate.
find_310() {
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3.10 python3; fi
    for candidate in "$@"; do
        if is_310 "$candidate" && "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

if [ ! -e "$venv/.installing" ] && is_310 "$python" && "$python" -m pip --version >/dev/null 2>&1; then
    echo "updating $venv"
else
    interpreter=$(find_310)
    if [ -n "$interpreter" ]; then
        echo "installing into $venv: about 5.6 GB, two to five minutes"
        rm -rf "$venv"
        "$interpreter" -m venv "$venv"
    elif [ -z "${PYTHON:-}" ] && command -v uv >/dev/null 2>&1; then
        echo "installing Python 3.10 and packages into $venv: about 5.6 GB, two to five minutes"
        rm -rf "$venv"
        uv venv --quiet --seed --python 3.10 "$venv"
    else
        echo "Python 3.10 with venv not found (Lava needs 3.10): install it with uv, pyenv or your package manager, or name it: make PYTHON=/path/to/python3.10" >&2
        exit 2
    fi
fi

rm -f "$venv/.installed"
: >"$venv/.installing"
pip_install() { "$python" -m pip install -qq --disable-pip-version-check -c constraints.txt "$@"; }

# What the last of these declare to need (data sets, drivers of chips, an older nir) the tests do not.
if ! pip_install -e '.[lava,test]' || ! pip_install --no-deps neurobench sinabs pbr; then
    rm -f "$venv/.installing" # pip stopped in good order: what it installed can stay
    echo "the installation into $venv failed: see pip's message above, then run make again" >&2
    exit 1
fi
mv "$venv/.installing" "$venv/.installed"
