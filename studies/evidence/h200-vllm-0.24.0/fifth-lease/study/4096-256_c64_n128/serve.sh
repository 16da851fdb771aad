#!/usr/bin/env bash
# Tuned by advisor: measured on 1 x NVIDIA H200 with vLLM 0.24.0.
# Study llama3.1-8b-h100-vllm, workload 4096-256_c64_n128, model /tmp/v/Llama-3.1-8B-Instruct, vLLM 0.24.0.
# 2026-11-29. Confidence: the default configuration; nothing found is clearly better.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
HOST="${HOST:-127.0.0.1}"
PORT="${PORT:-8000}"

exec vllm serve /tmp/v/Llama-3.1-8B-Instruct \
  --config "$here"/vllm-config.yaml \
  --host "$HOST" \
  --port "$PORT" "$@"
