"""Runs a command in the pod `box` until it is cut, and shows what the API server's last word is."""

import json
import sys

from kubernetes import client, config
from kubernetes.stream import stream
from kubernetes.stream.ws_client import ERROR_CHANNEL

config.load_kube_config()
command = stream(
    client.CoreV1Api().connect_get_namespaced_pod_exec,
    "box",
    "shop",
    command=["tail", "-f", "/etc/hosts"],
    stdout=True,
    stderr=True,
    _preload_content=False,
)
while command.is_open():
    print(command.read_stdout(timeout=1), end="", flush=True)
status = json.loads(command.read_channel(ERROR_CHANNEL))
print(status["message"])
sys.exit(status["status"] != "Success")
