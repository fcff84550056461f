#!/bin/sh
# Install the project with Lava and the test tools into a virtual environment. Run by make, from the repository root.
#
#     tools/install.sh .venv                   with Python 3.10, wherever it is found
#     tools/install.sh .venv-3.12 INTERPRETER  with that one
#
# `.installed` in the environment is written last; while an installation is under way `.installing` exists there, so
# that one cut short is found the next time and started over.
set -eu

venv=$1
python="$venv/bin/python"
interpreter=${2:-$(./tools/find_python.sh 3.10 || true)}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

version=3.10
if [ -n "$interpreter" ]; then version=$(version_of "$interpreter"); fi

if [ ! -e "$venv/.installing" ] && [ "$(version_of "$python")" = "$version" ] && "$python" -m pip --version >/dev/null 2>&1; then
    echo "updating $venv"
elif [ -n "$interpreter" ]; then
    echo "installing into $venv: about 6 GB, two to five minutes"
    rm -rf "$venv"
    "$interpreter" -m venv "$venv"
elif command -v uv >/dev/null 2>&1; then
    echo "installing Python 3.10 and packages into $venv: about 6 GB, two to five minutes"
    rm -rf "$venv"
    uv venv --quiet --seed --python 3.10 "$venv"
else
    echo "Python 3.10 with venv not found: install it with uv, pyenv or your package manager, or name a Python of 3.10 to 3.13: make PYTHON=/path/to/python3.12 (docs/install.md)" >&2
    exit 2
fi

rm -f "$venv/.installed"
: >"$venv/.installing"
pip_install() { "$python" -m pip install -qq --disable-pip-version-check "$@"; }
failed() {
    rm -f "$venv/.installing" # pip stopped in good order: what it installed can stay
    echo "the installation into $venv failed: see pip's message above, then run make again" >&2
    exit 1
}
pip_install -c constraints.txt -e '.[lava,test]' || failed
if [ "$version" = 3.10 ]; then
    # What these declare to need (data sets, drivers of chips, an older nir) the tests do not.
    pip_install --no-deps -c constraints.txt neurobench sinabs pbr || failed
else
    # The extra lava has what lava-nc requires, and not lava-nc, which asks for Python 3.10.
    pip_install --no-deps --ignore-requires-python lava-nc==0.10.0 || failed
fi
mv "$venv/.installing" "$venv/.installed"
