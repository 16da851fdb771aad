"""vLLM: what its logs say."""
