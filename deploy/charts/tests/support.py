"""Renders the chart. `HELM` names the helm to use."""

import json
import os
import pathlib
import subprocess

import yaml

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE.parent / "daypass"
HELM = os.environ.get("HELM", "helm")
REQUIRED = """
dataPlane: {id: eu-1, server: "https://api.example.com:6443"}
server: {publicUrl: "https://daypass.example.com"}
"""
VALUES = {
    "default": "",
    "all": """
server:
  publicUrl: "https://daypass.example.com"
  authMethods: [kubernetes, access-token, oidc]
oidc:
  issuers:
    - name: corp
      url: "https://id.example.com"
      audiences: [daypass]
      caConfigMap: id-ca
      usernameClaim: sub
      usernamePrefix: "corp:"
      console: {clientId: daypass, clientSecret: {name: id-client, key: secret}, scopes: [email]}
tls:
  certManager: {enabled: true, issuerRef: {name: ca}}
  caKey: ca.crt
  atProxy: {caConfigMap: edge-ca}
  dnsNames: [alias.example.com]
managers: [{kind: User, name: anna}, {kind: Group, name: storage, roles: [storage-view]}]
ingress: {enabled: true, className: nginx, tlsSecretName: edge, annotations: {a: b}}
httpRoute:
  enabled: true
  parentRefs: [{name: edge, namespace: gateways}]
  annotations: {a: b}
  backendTLSPolicy: {caConfigMap: ca}
tlsRoute: {enabled: true, parentRefs: [{name: edge, sectionName: tls}], annotations: {a: b}}
networkPolicy:
  enabled: true
  apiFrom: [{namespaceSelector: {}}]
  metricsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
  egress: [{ports: [{port: 6443, protocol: TCP}]}]
metrics:
  serviceMonitor: {enabled: true, labels: {release: prometheus}}
  prometheusRule: {enabled: true, labels: {release: prometheus}}
  dashboard: {enabled: true, annotations: {folder: Clusters}}
imagePullSecrets: [{name: registry}]
accessTokens: {users: {enabled: true}, generateBy: [{kind: Group, name: ci}], manageBy: [{kind: User, name: anna}]}
podLabels: {team: support}
podAnnotations: {a: b}
priorityClassName: system-cluster-critical
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{operator: Exists}]
affinity:
  nodeAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - {weight: 1, preference: {matchFields: [{key: metadata.name, operator: In, values: [a]}]}}
service: {annotations: {a: b}}
""",
    "given certificate": "tls: {secretName: my-tls}",
    "without": """
walls: {enabled: false}
crds: {enabled: false}
podDisruptionBudget: {enabled: false}
topologySpreadConstraints: []
resources: {}
roles: {projects-view: null, nodes-view: null, storage-view: null, pods-restart: null}
""",
    "an address": """
server: {publicUrl: "https://192.0.2.1:8443/behind/"}
tls: {certManager: {enabled: true, issuerRef: {name: ca}}}
""",
}
ISSUED = "tls: {certManager: {enabled: true, issuerRef: {name: ca, kind: Issuer}}, dnsNames: [alias.example.com]}"
TEMPLATES = [path for path in sorted((CHART / "templates").rglob("*")) if path.is_file()]
DAYPASS = {"kind": "ServiceAccount", "name": "daypass", "namespace": "daypass"}


def helm(*args, values=""):
    command = [HELM, *args, "--values", "-"]
    return subprocess.run(command, input=values, capture_output=True, text=True, timeout=60)


def render(values="", *args, release="daypass", namespace="daypass", tests=False, chart=CHART):
    """The rendered objects. `values` are added to the required ones if they are a text, or are all of them."""
    args = args if tests else (*args, "--skip-tests")
    values = REQUIRED + values if isinstance(values, str) else json.dumps(values)
    done = helm("template", release, str(chart), "--namespace", namespace, *args, values=values)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [obj for obj in yaml.safe_load_all(done.stdout) if obj]


def of_kind(objects, *kinds):
    return [obj for obj in objects if obj["kind"] in kinds]


def one(objects, kind, name, namespace=None):
    (found,) = [
        obj
        for obj in of_kind(objects, kind)
        if obj["metadata"]["name"] == name and obj["metadata"].get("namespace") == namespace
    ]
    return found


def containers(obj):
    spec = obj.get("spec", {})
    return (spec if obj["kind"] == "Pod" else spec.get("template", {}).get("spec", {})).get("containers", [])


def bindings_to(objects, cluster_role):
    """(kind, namespace, names of the subjects) of each binding to that ClusterRole."""
    return sorted(
        (obj["kind"], obj["metadata"].get("namespace", ""), [subject["name"] for subject in obj["subjects"]])
        for obj in of_kind(objects, "ClusterRoleBinding", "RoleBinding")
        if obj["roleRef"]["kind"] == "ClusterRole" and obj["roleRef"]["name"] == cluster_role
    )
