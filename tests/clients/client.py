"""Uses ConfigMaps in `default` and watches them until the watch is cut.  client.py NAME"""

import sys

from kubernetes import client, config, watch


def say(*words):
    print(*words, flush=True)


config.load_kube_config()
api, name = client.CoreV1Api(), sys.argv[1]
say("pods", len(api.list_pod_for_all_namespaces().items))
body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data={"a": "1"})
api.create_namespaced_config_map("default", body)
say("read", api.read_namespaced_config_map(name, "default").data["a"])
names = [item.metadata.name for item in api.list_namespaced_config_map("default").items]
say("listed" if name in names else "not listed")
api.delete_namespaced_config_map(name, "default")
try:
    for event in watch.Watch().stream(api.list_namespaced_config_map, "default"):
        say("seen", event["object"].metadata.name)
    say("ended without an error")
except client.ApiException as error:
    say("cut", error.status, error.reason)
try:
    api.list_namespaced_config_map("default")
except client.ApiException as error:
    say("refused", error.status, error.body)
