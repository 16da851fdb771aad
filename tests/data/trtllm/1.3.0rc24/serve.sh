#!/usr/bin/env bash
# Tuned by advisor: simulated by the twin.
# No GPU was used: measure it (bash serve.sh, then bash benchmark.sh) before you rely on it.
# Study llama4-maverick-fp8-b200, workload 4k1k_c1024, model nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8, TensorRT-LLM 1.3.0rc24.
# 2026-01-31. Confidence: candidate, not re-measured.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
HOST="${HOST:-127.0.0.1}"
PORT="${PORT:-8000}"

exec trtllm-serve nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8 \
  --backend pytorch \
  --max_batch_size 1024 \
  --max_num_tokens 8192 \
  --max_seq_len 5120 \
  --tp_size 8 \
  --pp_size 1 \
  --ep_size 8 \
  --kv_cache_free_gpu_memory_fraction 0.9 \
  --trust_remote_code \
  --extra_llm_api_options "$here"/extra-llm-api-config.yml \
  --host "$HOST" \
  --port "$PORT" "$@"
