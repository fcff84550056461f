#!/bin/sh
# Print the path of the first interpreter, of versions or commands given, that runs as a Python this project is tested
# on and can make environments; status 1 if there is none.
#
#     tools/find_python.sh 3.12 3.13
#     tools/find_python.sh python3.12
#
# A shim of pyenv runs a version only where that is chosen, so it is chosen here; Debian's python3.10 cannot make
# environments without python3.10-venv.
for wanted in "$@"; do
    case "$wanted" in
    [0-9]*) candidates="python$wanted python3" ;;
    *) candidates=$wanted ;;
    esac
    for candidate in $candidates; do
        found=$(
            PYENV_VERSION="${wanted#python}" "$candidate" - "$wanted" 2>/dev/null <<'EOF'
import ensurepip, os, sys, venv

version = "%d.%d" % sys.version_info[:2]
tested = version in ("3.10", "3.11", "3.12", "3.13")
if not tested or (sys.argv[1][0].isdigit() and sys.argv[1] != version):
    sys.exit(1)
print(os.path.realpath(sys.executable))
EOF
        ) && [ -x "$found" ] && echo "$found" && exit 0
    done
done
exit 1
