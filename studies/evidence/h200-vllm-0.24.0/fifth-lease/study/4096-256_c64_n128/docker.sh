#!/usr/bin/env bash
# Tuned by advisor: measured on 1 x NVIDIA H200 with vLLM 0.24.0.
# Study llama3.1-8b-h100-vllm, workload 4096-256_c64_n128, model /tmp/v/Llama-3.1-8B-Instruct, vLLM 0.24.0.
# 2026-11-29. Confidence: the default configuration; nothing found is clearly better.
# Needs docker with the NVIDIA container toolkit. Another choice of GPUs: GPUS='"device=2,3"'.
# HF_TOKEN is handed on from the environment where it is set, and stands in no file.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
HOST="${HOST:-127.0.0.1}"
PORT="${PORT:-8000}"
GPUS="${GPUS:-1}"
IMAGE="${IMAGE:-vllm/vllm-openai:v0.24.0}"

exec docker run --rm --init \
  --gpus "$GPUS" \
  --ipc=host \
  --ulimit memlock=-1 \
  --ulimit stack=67108864 \
  --publish "$HOST:$PORT:8000" \
  --mount "type=bind,\"source=$here\",\"target=/advisor\",readonly" \
  --mount "type=bind,\"source=/tmp/v/Llama-3.1-8B-Instruct\",\"target=/tmp/v/Llama-3.1-8B-Instruct\",readonly" \
  --env HF_TOKEN \
  --health-cmd 'python3 /advisor/probe.py' \
  --health-interval 30s --health-timeout 72s \
  --health-start-period 4500s \
  --entrypoint vllm \
  "$IMAGE" \
  serve /tmp/v/Llama-3.1-8B-Instruct \
  --config /advisor/vllm-config.yaml \
  --host 0.0.0.0 \
  --port 8000 "$@"
