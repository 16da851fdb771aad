#!/usr/bin/env bash
# A study of vLLM with random weights on an offline GPU host, from a bundle of vLLM and the wheels of advisor and its needs.
#
#   tools/gpu_study.sh setup BUNDLE     unpack the bundle (a tar with site.tar.xz, wheels/ and make_model.py) under $HOME_DIR
#   tools/gpu_study.sh study ARG...     advisor tune --study llama3.1-8b-h100-vllm, into $HOME_DIR/results; ARG: such as --resume
#   tools/gpu_study.sh rescue FILE ARG...   launch a configuration that is known to crash, once
#   tools/gpu_study.sh further FILE RUN ARG...   tools/further.py measure: the configurations of a list, into results/RUN
#   tools/gpu_study.sh referee ARG...   tools/referee_check.py on a server of its own: our client beside vllm bench serve
#       (like further.py, the file lies in $HOME_DIR)
#   tools/gpu_study.sh fresh ARG...   another of these commands, its launches as upstream makes them: spawned, caches empty
#
# HOME_DIR is /tmp/v unless it is set, and GPU (h100_sxm) says which one the study is about. What made studies/evidence/ stands in docs/h100-study.md.
set -euo pipefail
here=${HOME_DIR:-/tmp/v}
gpu=${GPU:-h100_sxm}
model=$here/Llama-3.1-8B-Instruct  # the folder's name tells which kernel times are meant
export PATH=$here/bin:$PATH PYTHONPATH=$here/site:$here/advisor PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_USE_FLASHINFER_SAMPLER=0
export VLLM_CACHE_ROOT=${VLLM_CACHE_ROOT:-$here/cache}
# vLLM keeps Triton's kernels with each compiled graph; they are the same for all, and kept together are compiled once.
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$VLLM_CACHE_ROOT/triton}
# The engine process begins as a copy of the one that serves HTTP: it need not import everything again.
export VLLM_WORKER_MULTIPROC_METHOD=${VLLM_WORKER_MULTIPROC_METHOD:-fork}

setup() {
    mkdir -p "$here/bin" "$here/results"
    tar xf "$1" -C "$here"
    xz -dc -T0 "$here/site.tar.xz" | tar xf - -C "$here"
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$here/advisor" "$here"/wheels/*.whl
    # The referee (vllm bench serve) imports for half a minute and measures again: a short lease has no time for it.
    printf '%s\n' '#!/usr/bin/env python3' 'import sys' 'if __name__ == "__main__":  # a spawned process imports this file' \
        '    if sys.argv[1:2] == ["bench"]:' '        sys.exit("left out: no device time")' \
        '    from vllm.entrypoints.cli.main import main' '    main()' >"$here/bin/vllm"
    printf '%s\n' '#!/usr/bin/env python3' 'from advisor.cli.main import main; main()' >"$here/bin/advisor"
    chmod +x "$here"/bin/*
    python3 -m compileall -q -j 0 "$here/site" "$here/advisor" >/dev/null || true
    python3 "$here/make_model.py" "$model"
    give_text
    machine >"$here/results/machine.txt" 2>&1
}

# A made tokenizer has fewer entries than the model has ids. For output without text vLLM decodes its prompt again at each
# token, which no model with its own tokenizer pays (docs/decisions/http-process.md).
give_text() {
    python3 - "$model" <<'EOF'
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
tokenizer = json.loads((folder / "tokenizer.json").read_text())
entries = tokenizer["model"]["vocab"]
taken = set(entries.values()) | {each["id"] for each in tokenizer["added_tokens"]}
n_ids = json.loads((folder / "config.json").read_text())["vocab_size"]
entries.update({f"text{n}": n for n in range(n_ids) if n not in taken})
(folder / "tokenizer.json").write_text(json.dumps(tokenizer))
EOF
}

machine() {
    nvidia-smi
    nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.mem --format=csv
    uname -srm
    lscpu | grep -E '^(Model name|CPU\(s\)|L3)'
    free -g
    python3 -c 'import sys, torch; print("python", sys.version.split()[0], "torch", torch.__version__)'
}

tune() {
    advisor tune --engine vllm --model "$model" --gpu "$gpu" --load-format dummy --yes --out "$here/results" "$@"
}

study() {
    tune --study llama3.1-8b-h100-vllm --workload 1024-128_c256_n1536 --workload 4096-256_c64_n128 "$@"
}

further() {
    file=$1
    run=$2
    shift 2
    python3 "$here/further.py" measure "$file" "$here/results/$run" --model "$model" --gpu "$gpu" "$@"
}

referee() {
    local port=8399 vllm="python3 -m vllm.entrypoints.cli.main"
    $vllm serve "$model" --load-format dummy --max-model-len 4096 --max-num-seqs 16 --port $port >"$here/results/referee-server.log" 2>&1 &
    local server=$!
    trap "kill $server; wait $server" EXIT
    until curl -sf "http://127.0.0.1:$port/health"; do
        kill -0 $server
        sleep 1
    done
    python3 "$here/referee_check.py" "http://127.0.0.1:$port" --vllm "$vllm" "$@" | tee -a "$here/results/referee.txt"
}

fresh() {
    unset TRITON_CACHE_DIR
    VLLM_WORKER_MULTIPROC_METHOD=spawn VLLM_CACHE_ROOT=$(mktemp -d "$here/fresh.XXXX") "$0" "$@"
}

rescue() {
    file=$1
    shift
    tune --study llama3.1-8b-h100-vllm --workload 4096-256_c512_n512 --rescue "$file" --max-launches 1 "$@"
}

"$@"
