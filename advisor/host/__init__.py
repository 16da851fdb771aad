"""Processes, GPUs, containers and job steps: what a launch needs from the machine it runs on."""
