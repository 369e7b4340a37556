# shellcheck shell=bash
# Sourced after env.sh by what measures with Python: environments with packages from PyPI, in the cache.

python=
for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && {
        python=$candidate
        break
    }
done
[ -n "$python" ] || die "no Python 3.11 or newer"
"$python" -c 'import ensurepip, venv' 2>/dev/null || die "$python cannot make environments: install python3-venv"

# An environment is whole when it has the stamp of the requirements that it was made of.
environment() { # environment FOLDER REQUIREMENTS
    local folder=$1 requirements=$2 stamp
    stamp=$folder/.$(sha256sum "$requirements" | cut -c1-16)
    [ -e "$stamp" ] && return
    say "installing from PyPI into $folder, once"
    rm -rf "$folder"
    "$python" -m venv "$folder" &&
        "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" >&2 &&
        touch "$stamp"
}
