"""`kubernetes.yaml`: ConfigMap, claim for the model cache, Deployment and Service of one server."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from advisor.engines.contained import (
    BUNDLE_FOLDER,
    CACHE_FOLDER,
    PORT,
    PROBE_ARGV,
    PROBE_NAME,
    SHM_GIB,
    TOKEN,
    Contained,
)
from advisor.report.yaml_documents import literal, yaml_documents

SECRET = "hf-token"
STARTUP_PERIOD_S, READINESS_PERIOD_S, LIVENESS_PERIOD_S = 10, 30, 60
READINESS_FAILURES, LIVENESS_FAILURES = 2, 3  # a queue passes, and a restart costs minutes


def kubernetes_yaml(comments: Iterable[str], server: Contained) -> str:
    """The manifests, for `kubectl apply -f`."""
    head = [
        *comments,
        "Probes generate a token, since /health says 200 for a server that is dead inside.",
        f"A gated model wants: kubectl create secret generic {SECRET} --from-literal={TOKEN}=...",
    ]
    cache = [] if server.checkpoint else [_claim(server)]
    return yaml_documents(head, _config_map(server), *cache, _deployment(server), _service(server))


def _metadata(server: Contained, suffix: str = "") -> dict[str, Any]:
    return {"name": server.name + suffix, "labels": _labels(server)}


def _labels(server: Contained) -> dict[str, str]:
    return {"app.kubernetes.io/name": server.name, "app.kubernetes.io/managed-by": "advisor"}


def _config_map(server: Contained) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(server, "-config"),
        "data": {server.config_name: server.config_text, PROBE_NAME: server.probe_text},
    }


def _claim(server: Contained) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(server, "-cache"),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": f"{server.cache_gib}Gi"}},
        },
    }


def _deployment(server: Contained) -> dict[str, Any]:
    selector = {"app.kubernetes.io/name": server.name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(server),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # there are rarely GPUs for two
            "selector": {"matchLabels": selector},
            "progressDeadlineSeconds": server.start_s + STARTUP_PERIOD_S,
            "template": {
                "metadata": {"labels": _labels(server), "annotations": {"advisor/tuned-for": _tuned_for(server)}},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,  # their variables look like options of an engine
                    "terminationGracePeriodSeconds": server.stop_s,
                    "containers": [_container(server)],
                    "volumes": _volumes(server),
                },
            },
        },
    }


def _tuned_for(server: Contained) -> str:
    return f"{server.gpus} x {server.gpu}"


def _container(server: Contained) -> dict[str, Any]:
    by_reference = {"secretKeyRef": {"name": SECRET, "key": TOKEN, "optional": True}}
    variables: list[dict[str, Any]] = [{"name": TOKEN, "valueFrom": by_reference}]
    variables += [{"name": name, "value": literal(value)} for name, value in server.environment.items()]
    mounts: list[dict[str, Any]] = [
        {"name": "config", "mountPath": BUNDLE_FOLDER, "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    if server.checkpoint is None:
        variables.append({"name": "HF_HOME", "value": CACHE_FOLDER})
        mounts.append({"name": "cache", "mountPath": CACHE_FOLDER})
    else:
        mounts.append({"name": "checkpoint", "mountPath": server.checkpoint, "readOnly": True})
    return {
        "name": "server",
        "image": server.image.reference,
        **({"command": list(server.image.entrypoint)} if server.image.entrypoint else {}),
        "args": [literal(word) for word in server.command],
        "env": variables,
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": {"limits": {"nvidia.com/gpu": server.gpus}},
        "volumeMounts": mounts,
        "startupProbe": _probe(server, STARTUP_PERIOD_S, math.ceil(server.start_s / STARTUP_PERIOD_S)),
        "readinessProbe": _probe(server, READINESS_PERIOD_S, READINESS_FAILURES),
        "livenessProbe": _probe(server, LIVENESS_PERIOD_S, LIVENESS_FAILURES),
    }


def _probe(server: Contained, period_s: int, failures: int) -> dict[str, Any]:
    return {
        "exec": {"command": list(PROBE_ARGV)},
        "periodSeconds": period_s,
        "timeoutSeconds": server.answer_s + 5,
        "failureThreshold": failures,
    }


def _volumes(server: Contained) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "config", "configMap": {"name": f"{server.name}-config"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{SHM_GIB}Gi"}},
    ]
    if server.checkpoint is None:
        return [*volumes, {"name": "cache", "persistentVolumeClaim": {"claimName": f"{server.name}-cache"}}]
    folder = {"path": server.checkpoint, "type": "Directory"}
    return [*volumes, {"name": "checkpoint", "hostPath": folder}]


def _service(server: Contained) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(server),
        "spec": {
            "type": "ClusterIP",
            "selector": {"app.kubernetes.io/name": server.name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }
