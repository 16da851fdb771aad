#!/usr/bin/env bash
# Tuned by advisor: simulated by the twin.
# No GPU was used: measure it (bash serve.sh, then bash benchmark.sh) before you rely on it.
# Study llama4-maverick-fp8-b200, workload 4k1k_c1024, model nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8, TensorRT-LLM 1.3.0rc24.
# 2026-01-31. Confidence: candidate, not re-measured.
# Give each run on one server its own SEED: equal prompts would hit the prefix cache.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
HOST="${HOST:-127.0.0.1}"
PORT="${PORT:-8000}"
SEED="${SEED:-0}"

python -m tensorrt_llm.serve.scripts.benchmark_serving \
  --model nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8 \
  --backend openai \
  --host "$HOST" \
  --port "$PORT" \
  --dataset-name random \
  --random-ids \
  --tokenize-on-client \
  --random-input-len 4096 \
  --random-output-len 1024 \
  --ignore-eos \
  --num-prompts 8192 \
  --max-concurrency 1024 \
  --seed "$SEED" \
  --percentile-metrics ttft,tpot,itl,e2el \
  --metric-percentiles 50,90,95,99 \
  --save-result \
  --result-dir "$here" \
  --result-filename benchmark_serving.json \
  --trust-remote-code "$@"

python - "$here/benchmark_serving.json" <<'CHECK'
import json, sys
result = json.load(open(sys.argv[1]))
wanted, tokens = 8192, 8388608
if result["completed"] != wanted:
    sys.exit(f"{wanted - result['completed']} of {wanted} requests failed: these numbers do not count.")
if tokens and result["total_output_tokens"] != tokens:
    sys.exit(f"{result['total_output_tokens']} output tokens instead of {tokens}: these numbers do not count.")
print(f"all {wanted} requests served; output {result['output_throughput']:.1f} tok/s")
CHECK
