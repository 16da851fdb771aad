#!/bin/sh
# Creates or refreshes the virtual environment in ./.venv: setup_venv.sh user|dev
# "user" holds the core dependencies only, "dev" adds the tools that test, lint and type-check.
# The stamps .venv/.user and .venv/.dev are the Makefile's; .made-in and .made-with say for which folder and with which
# interpreter it was made. NAMED_PYTHON is set when a person named the interpreter, and then another one is replaced.
set -eu

want=$1
venv=.venv
here=$(pwd -P)
with=$(cat $venv/.made-with 2>/dev/null || true)
python=${PYTHON:-python3}

fail() {
    printf 'advisor: %s\n' "$@" >&2
    exit 1
}

# A caller's settings must not lead the installation elsewhere; index and proxy settings stay.
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_PRE PIP_DRY_RUN PIP_REQUIRE_HASHES
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

suitable_python() {
    for minor in 12 11 13 10; do
        if "python3.$minor" -c '' >/dev/null 2>&1; then
            printf 'python3.%s' "$minor"
            return
        fi
    done
}

tag_of() {
    "$1" -c 'import sys; print("py%d%d" % sys.version_info[:2])' 2>/dev/null
}

if [ -e $venv ] && [ ! -e $venv/.made-in ]; then
    fail "there is a .venv that 'make' did not create; move it away or remove it, then try again."
fi
if [ "$(cat $venv/.made-in 2>/dev/null)" != "$here" ] ||
    [ "${NAMED_PYTHON:-$with}" != "$with" ] ||
    ! $venv/bin/python -m pip --version >/dev/null 2>&1; then
    tag=$(tag_of "$python") || fail "cannot run '$python'." "Install Python 3.10 to 3.13, or name one: make setup PYTHON=/path/to/python3"
    if [ ! -f "constraints/$tag.txt" ]; then
        found=$(suitable_python)
        fail "'$python' is $("$python" -V 2>&1), and advisor needs Python 3.10 to 3.13." \
            "Name one that is: make setup PYTHON=${found:-/path/to/python3.12}"
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "'$python' cannot create virtual environments: its venv or ensurepip module is missing." \
            "On Debian and Ubuntu: apt-get install python3-venv"
    rm -rf $venv
    mkdir $venv
    printf '%s' "$here" >$venv/.made-in
    printf '%s' "$python" >$venv/.made-with
    "$python" -m venv $venv || fail "'$python' could not create a virtual environment in $here/$venv; its message is above."
fi

tag=$(tag_of $venv/bin/python)
case $want in
    user) target=. stamps="$venv/.user" ;;
    dev) target='.[dev]' stamps="$venv/.user $venv/.dev" ;;
    *) fail "unknown environment '$want': user or dev" ;;
esac

printf 'advisor: installing into %s (%s, constraints/%s.txt) ...\n' "$venv" "$($venv/bin/python -V)" "$tag" >&2
$venv/bin/python -m pip install -qq --constraint "constraints/$tag.txt" --editable "$target" ||
    fail "pip could not install what constraints/$tag.txt lists; its message is above." \
        "Behind a proxy or a mirror, set it for pip as usual (pip config, PIP_INDEX_URL, HTTPS_PROXY) and try again."
touch $stamps
