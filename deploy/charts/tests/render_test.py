"""What the chart renders. `HELM` names the helm to use; needs what requirements.txt lists."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import promql_parser
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
tls: {certManager: {enabled: true, issuerRef: {name: ca}}, caKey: ca.crt, dnsNames: [alias.example.com]}
managers: [{kind: User, name: anna}, {kind: Group, name: storage, roles: [storage-view]}]
ingress: {enabled: true, className: nginx, tlsSecretName: edge, annotations: {a: b}}
httpRoute: {enabled: true, parentRefs: [{name: edge, namespace: gateways}], annotations: {a: b}, backendTLSPolicy: {caConfigMap: ca}}
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
podLabels: {team: support}
podAnnotations: {a: b}
priorityClassName: system-cluster-critical
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{operator: Exists}]
affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchFields: [{key: metadata.name, operator: In, values: [a]}]}}]}}
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
    "an address": 'server: {publicUrl: "https://192.0.2.1:8443/behind/"}\ntls: {certManager: {enabled: true, issuerRef: {name: ca}}}',
}
TEMPLATES = [path for path in sorted((CHART / "templates").rglob("*")) if path.is_file()]
DAYPASS = {"kind": "ServiceAccount", "name": "daypass", "namespace": "daypass"}


def helm(*args, values=""):
    command = [HELM, *args, "--values", "-"]
    return subprocess.run(command, input=values, capture_output=True, text=True, timeout=60)


def render(values="", *args, release="daypass", namespace="daypass", tests=False):
    """The rendered objects. `values` are added to the required ones."""
    args = args if tests else (*args, "--skip-tests")
    done = helm("template", release, str(CHART), "--namespace", namespace, *args, values=REQUIRED + values)
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


class Chart(unittest.TestCase):
    def test_lint_is_clean(self):
        for name, values in VALUES.items():
            with self.subTest(name):
                done = helm("lint", "--strict", str(CHART), values=REQUIRED + values)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                # Notices of helm lint: there are none either.
                self.assertNotIn("[", done.stdout)

    def test_two_renders_are_the_same_bytes(self):
        for name, values in VALUES.items():
            with self.subTest(name):
                first, second = (helm("template", "daypass", str(CHART), values=REQUIRED + values) for _ in range(2))
                self.assertEqual(first.returncode, 0, first.stderr)
                self.assertEqual(first.stdout, second.stdout)

    def test_nothing_depends_on_the_cluster_on_chance_or_on_the_time(self):
        """A GitOps controller renders again and again, without a cluster."""
        unstable = r"\b(lookup|rand\w+|gen(CA|PrivateKey|Signed\w*|SelfSigned\w*)|uuidv4|htpasswd|now|derivePassword|Release\.Is\w+|Release\.Revision|Capabilities)\b"
        for path in TEMPLATES:
            for call in re.findall(r"{{.*?}}", re.sub(r"{{-? */\*.*?\*/ *-?}}", "", path.read_text(), flags=re.S), re.S):
                self.assertNotRegex(call, unstable, path.name)

    def test_no_null_and_no_empty_field(self):
        def walk(value, path):
            self.assertNotIn(value, (None, [], {}), path)
            for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
                # A selector of everything is an empty map.
                if str(key) not in ("namespaceSelector", "podSelector", "apiGroups", "data"):
                    walk(item, f"{path}.{key}")

        for name, values in VALUES.items():
            for obj in render(values, tests=True):
                if obj["kind"] != "CustomResourceDefinition":
                    walk(obj, f"{name}: {obj['kind']} {obj['metadata']['name']}")

    def test_a_scanner_finds_nothing(self):
        """checkov; checkov.yaml, and the annotations of what is meant, say what it does not look at, and why."""
        with tempfile.TemporaryDirectory() as folder:
            for name, values in VALUES.items():
                text = yaml.safe_dump_all(render(values + f"\nimage: {{digest: 'sha256:{'0' * 64}'}}", tests=True))
                (pathlib.Path(folder) / f"{name.replace(' ', '-')}.yaml").write_text(text)
            checkov = [sys.executable, pathlib.Path(sys.executable).with_name("checkov"), "--config-file"]
            done = subprocess.run(
                [*checkov, HERE / "checkov.yaml", "--directory", folder], capture_output=True, text=True, timeout=300
            )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_template_has_a_test(self):
        """That is, a class below that says it is of that template."""
        tested = {name for case in CASES for name in getattr(case, "templates", ())}
        rendering = {str(path.relative_to(CHART / "templates")) for path in TEMPLATES if path.suffix == ".yaml"}
        self.assertEqual(sorted(tested), sorted(rendering))
        for case in CASES:
            self.assertTrue(unittest.defaultTestLoader.getTestCaseNames(case), case)

    def test_no_namespace_of_its_own_no_hooks_but_tests_no_certificates(self):
        for values in VALUES.values():
            objects = render(values)
            self.assertNotIn("daypass", [obj["metadata"]["name"] for obj in of_kind(objects, "Namespace")])
            self.assertEqual(of_kind(objects, "Secret", "Pod", "Job"), [])
            for obj in render(values, tests=True):
                self.assertIn(obj["metadata"].get("annotations", {}).get("helm.sh/hook", "test"), "test")

    def test_every_value_is_described_in_the_schema(self):
        def walk(values, schema, path):
            self.assertIn("properties", schema, path)
            self.assertIs(schema["additionalProperties"], False, path)
            self.assertEqual(sorted(values), sorted(set(schema["properties"]) - {"global"}), path)
            for key, value in values.items():
                if isinstance(value, dict) and "properties" in schema["properties"][key]:
                    walk(value, schema["properties"][key], f"{path}.{key}")

        walk(yaml.safe_load((CHART / "values.yaml").read_text()), json.loads((CHART / "values.schema.json").read_text()), "")

    def test_artifact_hub(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        hub = {key.removeprefix("artifacthub.io/"): yaml.safe_load(value) for key, value in chart["annotations"].items()}
        images = {container["image"] for obj in render(tests=True) for container in containers(obj)}
        self.assertEqual({entry["image"] for entry in hub["images"]}, images)
        self.assertEqual(chart["appVersion"], chart["version"])
        self.assertTrue(hub["changes"])
        self.assertEqual(hub["license"], "Apache-2.0")
        crds = {crd["spec"]["names"]["kind"]: crd for crd in of_kind(render(), "CustomResourceDefinition")}
        for entry in hub["crds"]:
            crd = crds[entry["kind"]]
            self.assertEqual(entry["name"], crd["metadata"]["name"])
            self.assertIn(entry["version"], [version["name"] for version in crd["spec"]["versions"]])
        self.assertEqual(sorted(entry["kind"] for entry in hub["crds"]), sorted(crds))
        self.assertLessEqual({example["kind"] for example in hub["crdsExamples"]}, set(crds))


class Values(unittest.TestCase):
    """Each bad value is refused with a message that names it."""

    templates = ["validate.yaml"]

    def refused(self, values, message, namespace="daypass"):
        done = helm("template", "daypass", str(CHART), "--namespace", namespace, values=values)
        self.assertNotEqual(done.returncode, 0, f"accepted: {values}")
        self.assertIn(message, done.stderr)

    def test_required(self):
        self.refused("", "dataPlane.id is required")
        self.refused("dataPlane: {id: a}", "dataPlane.server is required")
        self.refused("dataPlane: {id: a, server: 'https://a'}", "server.publicUrl is required")

    def test_schema(self):
        for values, message in [
            ("dataPlanes: {}", "'dataPlanes'"),
            ("dataPlane: {id: 'a/b'}", "/dataPlane/id"),
            ("dataPlane: {server: 'http://a'}", "/dataPlane/server"),
            ("server: {publicUrl: 'https://a?b'}", "/server/publicUrl"),
            ("server: {trustedProxies: ['10.0.0.1']}", "/server/trustedProxies/0"),
            ("managers: [{kind: Robot, name: a}]", "/managers/0/kind"),
            ("managers: [{kind: User}]", "/managers/0"),
            ("managers: [{kind: User, name: a, roles: []}]", "/managers/0/roles"),
            ("roles: {Bad_Id: {name: a}}", "Bad_Id"),
            (f"roles: {{{'a' * 56}: {{name: a}}}}", "a" * 56),
            ("roles: {a: {rules: [{resources: [pods]}]}}", "/roles/a/rules/0"),
            ("roles: {a: {namespaces: []}}", "/roles/a/namespaces"),
            ("replicas: -1", "/replicas"),
            ("image: {digest: latest}", "/image/digest"),
            ("shutdownDelaySeconds: 301", "/shutdownDelaySeconds"),
            ("podDisruptionBudget: {maxUnavailable: some}", "/podDisruptionBudget/maxUnavailable"),
            ("tls: {certManager: {renewBefore: 30d}}", "/tls/certManager/renewBefore"),
            ("tlsRoute: {parentRefs: [{namespace: a}]}", "/tlsRoute/parentRefs/0"),
            ("metrics: {serviceMonitor: {interval: 30}}", "/metrics/serviceMonitor/interval"),
        ]:
            with self.subTest(values):
                self.refused(values, message)

    def test_what_a_schema_cannot_say(self):
        for values, message in [
            ("managers: [{kind: ServiceAccount, name: a}]", "managers[0].namespace"),
            ("managers: [{kind: User, name: a, namespace: b}]", "managers[0].namespace"),
            ("managers: [{kind: User, name: a, roles: [nope]}]", "managers[0].roles: nope"),
            ("managers: [{kind: ServiceAccount, namespace: daypass-nodes-view, name: a}]", "managers[0]"),
            ("managers: [{kind: Group, name: 'system:serviceaccounts:daypass-nodes-view'}]", "managers[0]"),
            ("roles: {a: {name: a}}", "roles.a has neither rules nor clusterRoles"),
            ("roles: {a: {clusterRoles: [view], namespaces: [daypass-b]}}", "roles.a.namespaces: daypass-b"),
            ("tls: {caKey: ca.crt}", "tls.caKey"),
            ("tls: {certManager: {enabled: true}}", "tls.certManager.issuerRef.name"),
            ("tls: {secretName: daypass-tls, certManager: {enabled: true, issuerRef: {name: a}}}", "tls.secretName"),
            ("httpRoute: {enabled: true}", "httpRoute.parentRefs"),
            ("tlsRoute: {enabled: true}", "tlsRoute.parentRefs"),
            ("metrics: {prometheusRule: {enabled: true}}", "metrics.prometheusRule"),
            ("metrics: {dashboard: {enabled: true}}", "metrics.dashboard"),
            ("test: {role: nope}", "test.role: nope"),
            ('ingress: {enabled: true}\nserver: {publicUrl: "https://a/b"}', "server.publicUrl has a path"),
            ('ingress: {enabled: true}\nserver: {publicUrl: "https://192.0.2.1"}', "server.publicUrl has an address"),
            ('ingress: {enabled: true}\nserver: {publicUrl: "https://[2001:db8::1]:8443"}', "server.publicUrl has an address"),
        ]:
            with self.subTest(values):
                self.refused(REQUIRED + values, message)
        self.refused(REQUIRED, "the release namespace", namespace="daypass-system")


class OwnRights(unittest.TestCase):
    templates = ["rbac.yaml", "roles/manage.yaml"]

    def rules(self):
        """Every rule that is bound to Daypass's own service account."""
        objects = render()
        for binding in of_kind(objects, "ClusterRoleBinding", "RoleBinding"):
            if DAYPASS in binding["subjects"]:
                ref, namespace = binding["roleRef"], binding["metadata"].get("namespace")
                role = one(objects, ref["kind"], ref["name"], namespace if ref["kind"] == "Role" else None)
                for rule in role["rules"]:
                    yield role["metadata"].get("namespace", ""), rule

    def test_none_writes_rbac_or_is_a_wildcard(self):
        rules = list(self.rules())
        self.assertGreater(len(rules), 20)
        for _, rule in rules:
            self.assertNotIn("nonResourceURLs", rule)
            for names in (rule["apiGroups"], rule["resources"], rule["verbs"]):
                self.assertNotIn("*", names)
            self.assertFalse({"impersonate", "bind", "escalate"} & set(rule["verbs"]), rule)
            if "rbac.authorization.k8s.io" in rule["apiGroups"]:
                self.assertLessEqual(set(rule["verbs"]), {"get", "list", "watch"})

    def test_no_rights_to_secrets_outside_role_namespaces(self):
        for namespace, rule in self.rules():
            if "secrets" in rule["resources"] and not namespace.startswith("daypass-"):
                self.assertEqual(namespace, "daypass")
                self.assertTrue(rule["verbs"] == ["create"] or rule["resourceNames"] == ["daypass-tls"])

    def test_every_rule_says_who_needs_it(self):
        for template in ("rbac.yaml", "roles/namespaces.yaml", "managers.yaml"):
            lines = (CHART / "templates" / template).read_text().splitlines()
            for before, line in zip(lines, lines[1:]):
                if line.strip().startswith("- apiGroups:"):
                    self.assertRegex(before, r"^ +# ", f"{template}: {line}")


class Managers(unittest.TestCase):
    templates = ["managers.yaml"]

    def test_of_all_roles_and_of_some(self):
        objects = render(
            """
managers:
  - {kind: User, name: anna}
  - {kind: ServiceAccount, namespace: default, name: owner}
  - {kind: Group, name: storage, roles: [storage-view]}
  - {kind: User, name: bob, roles: [storage-view, nodes-view]}
"""
        )
        self.assertEqual(
            bindings_to(objects, "daypass-engines-manage"),
            [
                ("ClusterRoleBinding", "", ["anna", "owner"]),
                ("RoleBinding", "daypass-nodes-view", ["bob"]),
                ("RoleBinding", "daypass-storage-view", ["storage", "bob"]),
            ],
        )

    def test_none(self):
        self.assertEqual(bindings_to(render(), "daypass-engines-manage"), [])


class Roles(unittest.TestCase):
    templates = ["roles/namespaces.yaml", "roles/bindings.yaml"]

    OPS = """
roles:
  ops:
    description: "it's \\"quoted\\": yes"
    rules: [{apiGroups: [apps], resources: [deployments], verbs: [get]}]
    clusterRoles: ["system:aggregate-to-view"]
    maxMembers: 3
"""

    def test_a_role_is_a_namespace_with_its_bindings(self):
        objects = render(self.OPS)
        namespace = one(objects, "Namespace", "daypass-ops")["metadata"]
        self.assertEqual(namespace["labels"]["daypass.dev/role-id"], "ops")
        self.assertEqual(namespace["labels"]["pod-security.kubernetes.io/enforce"], "restricted")
        self.assertEqual(
            namespace["annotations"], {"daypass.dev/name": "ops", "daypass.dev/description": 'it\'s "quoted": yes'}
        )
        hard = one(objects, "ResourceQuota", "daypass", "daypass-ops")["spec"]["hard"]
        self.assertEqual(hard["pods"], "0")
        self.assertEqual(hard["count/members.daypass.dev"], "3")
        self.assertEqual(one(objects, "RoleBinding", "daypass", "daypass-ops")["subjects"], [DAYPASS])
        group = ["system:serviceaccounts:daypass-ops"]
        for cluster_role in ("daypass-role-ops", "system:aggregate-to-view"):
            self.assertEqual(bindings_to(objects, cluster_role), [("ClusterRoleBinding", "", group)])

    def test_one_with_namespaces_is_bound_there_only(self):
        objects = render(self.OPS + "    namespaces: [blue, green]\n")
        group = ["system:serviceaccounts:daypass-ops"]
        for cluster_role in ("daypass-role-ops", "system:aggregate-to-view"):
            self.assertEqual(
                bindings_to(objects, cluster_role),
                [("RoleBinding", "blue", group), ("RoleBinding", "green", group)],
            )

    def test_names_of_bindings_do_not_clash(self):
        objects = render("roles: {a: {clusterRoles: [b-c]}, a-b: {clusterRoles: [c]}}")
        names = [(obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace")) for obj in objects]
        self.assertEqual(len(names), len(set(names)))

    def test_a_shipped_role_can_be_dropped(self):
        objects = render("roles: {nodes-view: null}")
        self.assertNotIn("nodes-view", yaml.safe_dump_all(objects))

    def test_shipped_roles_list_their_own_rules(self):
        objects = render()
        namespaces = of_kind(objects, "Namespace")
        self.assertEqual(len(namespaces), 4)
        for namespace in namespaces:
            group = "system:serviceaccounts:" + namespace["metadata"]["name"]
            bound = [
                obj["roleRef"]["name"]
                for obj in of_kind(objects, "ClusterRoleBinding", "RoleBinding")
                if group in [subject["name"] for subject in obj["subjects"]]
            ]
            self.assertEqual(bound, ["daypass-role-" + namespace["metadata"]["labels"]["daypass.dev/role-id"]])
        for name in ("projects-view", "nodes-view", "storage-view"):
            for rule in one(objects, "ClusterRole", f"daypass-role-{name}")["rules"]:
                self.assertLessEqual(set(rule["verbs"]), {"get", "list", "watch"})
                self.assertNotIn("secrets", rule["resources"])
        view = one(objects, "ClusterRole", "daypass-role-projects-view")["rules"]
        restart = one(objects, "ClusterRole", "daypass-role-pods-restart")["rules"]
        self.assertEqual(restart[: len(view)], view)


class Crds(unittest.TestCase):
    templates = ["crds.yaml"]

    def sources(self):
        crds = [yaml.safe_load(path.read_text()) for path in sorted((CHART / "files").glob("*.yaml"))]
        self.assertTrue(crds)
        return crds

    def test_rendered_as_generated(self):
        rendered = of_kind(render(), "CustomResourceDefinition")
        self.assertEqual([crd["spec"] for crd in rendered], [crd["spec"] for crd in self.sources()])

    def test_keep_and_enabled(self):
        for crd in of_kind(render(), "CustomResourceDefinition"):
            self.assertEqual(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep")
        for crd in of_kind(render("crds: {keep: false}"), "CustomResourceDefinition"):
            self.assertNotIn("helm.sh/resource-policy", crd["metadata"].get("annotations", {}))
        self.assertEqual(of_kind(render("crds: {enabled: false}"), "CustomResourceDefinition"), [])


class Pods(unittest.TestCase):
    templates = ["deployment.yaml", "serviceaccount.yaml"]

    def pod(self, values=""):
        return one(render(values), "Deployment", "daypass", "daypass")["spec"]["template"]["spec"]

    def test_restricted(self):
        """What the profile `restricted` of Pod Security asks for, and a root that cannot be written."""
        for obj in render(tests=True):
            pod = obj["spec"] if obj["kind"] == "Pod" else obj.get("spec", {}).get("template", {}).get("spec")
            if not pod:
                continue
            with self.subTest(obj["kind"]):
                (container,) = pod["containers"]
                self.assertTrue(pod["securityContext"]["runAsNonRoot"])
                self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertFalse(pod["enableServiceLinks"])
                self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & set(pod))
                self.assertLessEqual({key for volume in pod["volumes"] for key in volume}, {"name", "projected", "secret"})
                self.assertEqual(
                    container["securityContext"],
                    {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                )

    def test_a_new_version_loses_no_request(self):
        deployment = one(render("shutdownDelaySeconds: 20"), "Deployment", "daypass", "daypass")["spec"]
        self.assertEqual(deployment["replicas"], 2)
        self.assertEqual(deployment["strategy"], {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
        pod = deployment["template"]["spec"]
        self.assertIn("--shutdown-delay-seconds=20", pod["containers"][0]["args"])
        # The delay, the 25 s of runtime.rs, and some to spare.
        self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], 20 + 25 + 5)

    def test_probes(self):
        (container,) = self.pod()["containers"]
        self.assertEqual([port for port in container["ports"] if port["name"] == "admin"], [{"name": "admin", "containerPort": 8080}])
        for probe, path in [("startup", "/livez"), ("readiness", "/readyz"), ("liveness", "/livez")]:
            self.assertEqual(container[f"{probe}Probe"]["httpGet"], {"path": path, "port": "admin"})

    def test_spread(self):
        ours = one(render(), "Deployment", "daypass", "daypass")["spec"]["selector"]
        constraints = self.pod()["topologySpreadConstraints"]
        self.assertEqual([c["topologyKey"] for c in constraints], ["kubernetes.io/hostname", "topology.kubernetes.io/zone"])
        for constraint in constraints:
            self.assertEqual(constraint["labelSelector"], ours)
            self.assertEqual(constraint["whenUnsatisfiable"], "ScheduleAnyway")
            self.assertEqual(constraint["matchLabelKeys"], ["pod-template-hash"])
        own = "{topologyKey: rack, maxSkew: 2, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}}"
        self.assertEqual(self.pod(f"topologySpreadConstraints: [{own}]")["topologySpreadConstraints"], [yaml.safe_load(own)])
        self.assertNotIn("topologySpreadConstraints", self.pod("topologySpreadConstraints: []"))

    def test_certificate(self):
        (container,) = self.pod()["containers"]
        self.assertIn("--tls-dns-name=daypass.daypass.svc", container["args"])
        pod = self.pod("tls: {secretName: my-tls, caKey: ca.crt}")
        (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        self.assertEqual(secret["secretName"], "my-tls")
        args = pod["containers"][0]["args"]
        self.assertIn("--tls-cert-file=/etc/daypass/tls/tls.crt", args)
        self.assertIn("--tls-ca-file=/etc/daypass/tls/ca.crt", args)

    def test_own_token(self):
        self.assertIs(one(render(), "ServiceAccount", "daypass", "daypass")["automountServiceAccountToken"], False)
        pod = self.pod()
        self.assertIs(pod["automountServiceAccountToken"], False)
        (token,) = [s for s in pod["volumes"][0]["projected"]["sources"] if "serviceAccountToken" in s]
        # The API server makes a token of a year of one for 3607 s.
        self.assertEqual(token["serviceAccountToken"]["expirationSeconds"], 3600)

    def test_image(self):
        digest = "sha256:" + "0" * 64
        image = self.pod(f"image: {{repository: r.example.com/daypass, tag: '1', digest: '{digest}'}}")["containers"][0]
        self.assertEqual(image["image"], f"r.example.com/daypass@{digest}")


class Walls(unittest.TestCase):
    templates = ["walls/member-identities.yaml", "walls/members.yaml", "walls/namespaces.yaml", "walls/own-namespace.yaml", "walls/role-namespaces.yaml"]

    def test_each_policy_is_bound_fails_closed_and_names_itself(self):
        objects = render()
        bindings = of_kind(objects, "ValidatingAdmissionPolicyBinding")
        policies = of_kind(objects, "ValidatingAdmissionPolicy")
        self.assertEqual(
            [(binding["metadata"]["name"], binding["spec"]["validationActions"]) for binding in bindings],
            [(policy["metadata"]["name"], ["Deny"]) for policy in policies],
        )
        for policy in policies:
            self.assertEqual(policy["spec"]["failurePolicy"], "Fail")
            for validation in policy["spec"]["validations"]:
                self.assertTrue(validation["message"].startswith(f"Daypass (policy {policy['metadata']['name']}): "))

    def test_off(self):
        done = helm("template", "daypass", str(CHART), values=REQUIRED + "walls: {enabled: false}")
        self.assertNotIn("ValidatingAdmissionPolicy", done.stdout)

    def test_they_know_daypass_under_another_release_name(self):
        policies = of_kind(render(release="other", namespace="ops"), "ValidatingAdmissionPolicy")
        self.assertIn("system:serviceaccount:ops:other-daypass", yaml.safe_dump_all(policies))



class Budget(unittest.TestCase):
    templates = ["poddisruptionbudget.yaml"]

    def test_one_pod_at_a_time(self):
        objects = render()
        spec = one(objects, "PodDisruptionBudget", "daypass", "daypass")["spec"]
        self.assertEqual(spec["selector"], one(objects, "Deployment", "daypass", "daypass")["spec"]["selector"])
        self.assertEqual((spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]), (1, "AlwaysAllow"))
        half = one(render("podDisruptionBudget: {maxUnavailable: 50%}"), "PodDisruptionBudget", "daypass", "daypass")
        self.assertEqual(half["spec"]["maxUnavailable"], "50%")

    def test_off(self):
        self.assertEqual(of_kind(render("podDisruptionBudget: {enabled: false}"), "PodDisruptionBudget"), [])


class Services(unittest.TestCase):
    templates = ["service.yaml"]

    def test_https_alone(self):
        objects = render("service: {type: LoadBalancer, port: 443, annotations: {a: b}}")
        service = one(objects, "Service", "daypass", "daypass")
        self.assertEqual(service["metadata"]["annotations"], {"a": "b"})
        self.assertEqual(service["spec"]["type"], "LoadBalancer")
        self.assertEqual(service["spec"]["ports"], [{"name": "https", "port": 443, "targetPort": "https", "appProtocol": "https"}])
        # Only the pods that serve; metrics are not exposed with it.
        self.assertEqual(service["spec"]["selector"], one(objects, "Deployment", "daypass", "daypass")["spec"]["selector"]["matchLabels"])
        self.assertEqual(len(of_kind(objects, "Service")), 1)


class Certificates(unittest.TestCase):
    templates = ["certificate.yaml"]
    ISSUED = "tls: {certManager: {enabled: true, issuerRef: {name: ca, kind: Issuer}}, dnsNames: [alias.example.com]}"

    def test_from_cert_manager(self):
        objects = render(self.ISSUED)
        spec = one(objects, "Certificate", "daypass", "daypass")["spec"]
        self.assertEqual(spec["issuerRef"], {"name": "ca", "kind": "Issuer", "group": "cert-manager.io"})
        self.assertEqual(spec["dnsNames"], ["daypass.example.com", "daypass.daypass.svc", "alias.example.com"])
        pod = one(objects, "Deployment", "daypass", "daypass")["spec"]["template"]["spec"]
        self.assertIn(spec["secretName"], [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume])
        # Daypass then makes none, and has no right to.
        self.assertFalse([arg for arg in pod["containers"][0]["args"] if arg.startswith("--tls-dns-name")])
        for rule in one(objects, "Role", "daypass", "daypass")["rules"]:
            self.assertNotIn("secrets", rule["resources"])

    def test_for_an_address_and_into_a_secret_of_that_name(self):
        values = "tls: {secretName: mine, certManager: {enabled: true, issuerRef: {name: ca}}}\nserver: {publicUrl: 'https://192.0.2.1:8443'}"
        spec = one(render(values), "Certificate", "daypass", "daypass")["spec"]
        self.assertEqual((spec["secretName"], spec["dnsNames"], spec["ipAddresses"]), ("mine", ["daypass.daypass.svc"], ["192.0.2.1"]))

    def test_off(self):
        self.assertEqual(of_kind(render("tls: {secretName: mine}"), "Certificate"), [])


class Exposed(unittest.TestCase):
    templates = ["ingress.yaml", "httproute.yaml", "tlsroute.yaml"]

    def test_off(self):
        self.assertEqual(of_kind(render(), "Ingress", "HTTPRoute", "TLSRoute", "BackendTLSPolicy"), [])

    def test_ingress(self):
        values = "server: {publicUrl: 'https://daypass.example.com:8443/'}\ningress: {enabled: true, className: nginx, tlsSecretName: edge, annotations: {a: b}}"
        ingress = one(render(values), "Ingress", "daypass", "daypass")
        self.assertEqual(ingress["metadata"]["annotations"], {"a": "b"})
        spec = ingress["spec"]
        self.assertEqual(spec["ingressClassName"], "nginx")
        self.assertEqual(spec["tls"], [{"hosts": ["daypass.example.com"], "secretName": "edge"}])
        (rule,) = spec["rules"]
        self.assertEqual(rule["host"], "daypass.example.com")
        self.assertEqual(rule["http"]["paths"][0]["backend"]["service"], {"name": "daypass", "port": {"name": "https"}})
        plain = one(render("ingress: {enabled: true}"), "Ingress", "daypass", "daypass")["spec"]
        self.assertEqual(list(plain), ["rules"])

    def test_http_route_is_encrypted_again(self):
        objects = render("httpRoute: {enabled: true, parentRefs: [{name: edge, namespace: gateways}]}\nservice: {port: 443}")
        spec = one(objects, "HTTPRoute", "daypass", "daypass")["spec"]
        self.assertEqual(
            spec["parentRefs"], [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge", "namespace": "gateways"}]
        )
        self.assertEqual(spec["hostnames"], ["daypass.example.com"])
        backend = {"group": "", "kind": "Service", "name": "daypass", "port": 443, "weight": 1}
        self.assertEqual(spec["rules"][0]["backendRefs"], [backend])
        policy = one(objects, "BackendTLSPolicy", "daypass", "daypass")["spec"]
        self.assertEqual(policy["targetRefs"], [{"group": "", "kind": "Service", "name": "daypass", "sectionName": "https"}])
        self.assertEqual(policy["validation"], {"hostname": "daypass.example.com", "wellKnownCACertificates": "System"})

    def test_http_route_with_a_ca_and_without_a_policy(self):
        route = "httpRoute: {{enabled: true, parentRefs: [{{name: edge}}], backendTLSPolicy: {}}}"
        policy = one(render(route.format("{caConfigMap: ca}")), "BackendTLSPolicy", "daypass", "daypass")["spec"]["validation"]
        self.assertEqual(policy["caCertificateRefs"], [{"group": "", "kind": "ConfigMap", "name": "ca"}])
        self.assertNotIn("wellKnownCACertificates", policy)
        self.assertEqual(of_kind(render(route.format("{enabled: false}")), "BackendTLSPolicy"), [])

    def test_tls_route(self):
        spec = one(render("tlsRoute: {enabled: true, parentRefs: [{name: edge, sectionName: tls}]}"), "TLSRoute", "daypass", "daypass")["spec"]
        self.assertEqual(spec["hostnames"], ["daypass.example.com"])
        self.assertEqual(spec["parentRefs"][0]["sectionName"], "tls")
        self.assertEqual(spec["rules"][0]["backendRefs"][0]["port"], 8443)


class Networks(unittest.TestCase):
    templates = ["networkpolicy.yaml"]

    def spec(self, values):
        return one(render(f"networkPolicy: {{enabled: true, {values}}}"), "NetworkPolicy", "daypass", "daypass")["spec"]

    def test_off(self):
        self.assertEqual(of_kind(render(), "NetworkPolicy"), [])

    def test_everybody_reaches_the_api_and_nobody_the_rest(self):
        spec = self.spec("")
        self.assertEqual(spec["podSelector"], one(render(), "Deployment", "daypass", "daypass")["spec"]["selector"])
        self.assertEqual(spec["policyTypes"], ["Ingress"])
        self.assertEqual(spec["ingress"], [{"ports": [{"port": "https", "protocol": "TCP"}]}])

    def test_who_may(self):
        edge, monitoring = [{"podSelector": {"matchLabels": {"app": name}}} for name in ("edge", "monitoring")]
        spec = self.spec(f"apiFrom: [{edge}], metricsFrom: [{monitoring}], egress: [{{ports: [{{port: 53}}]}}]")
        api, metrics = spec["ingress"]
        (test,) = of_kind(render(tests=True), "Pod")
        self.assertEqual(api["from"], [edge, {"podSelector": {"matchLabels": test["metadata"]["labels"]}}])
        self.assertEqual((metrics["from"], metrics["ports"][0]["port"]), ([monitoring], "admin"))
        self.assertEqual(spec["policyTypes"], ["Ingress", "Egress"])
        self.assertEqual(spec["egress"], [{"ports": [{"port": 53}]}])


class Monitoring(unittest.TestCase):
    templates = ["metrics/servicemonitor.yaml", "metrics/prometheusrule.yaml", "metrics/dashboard.yaml"]

    def objects(self, more=""):
        return render("metrics: {serviceMonitor: {enabled: true}, prometheusRule: {enabled: true}, dashboard: {enabled: true}}\n" + more)

    def expressions(self):
        rule = one(self.objects(), "PrometheusRule", "daypass", "daypass")
        for group in rule["spec"]["groups"]:
            for alert in group["rules"]:
                yield alert["expr"]
        dashboard = one(self.objects(), "ConfigMap", "daypass-dashboard", "daypass")["data"]["daypass.json"]
        for panel in json.loads(dashboard)["panels"]:
            for target in panel["targets"]:
                yield target["expr"].replace("$__rate_interval", "1m")

    def test_off(self):
        self.assertEqual(of_kind(render(), "ServiceMonitor", "PrometheusRule", "ConfigMap"), [])

    def test_the_monitor_finds_its_service_and_that_the_pods(self):
        objects = self.objects()
        service = one(objects, "Service", "daypass-metrics", "daypass")
        monitor = one(objects, "ServiceMonitor", "daypass", "daypass")["spec"]
        self.assertLessEqual(monitor["selector"]["matchLabels"].items(), service["metadata"]["labels"].items())
        api = one(objects, "Service", "daypass", "daypass")
        self.assertFalse(monitor["selector"]["matchLabels"].items() <= api["metadata"]["labels"].items())
        self.assertEqual(monitor["endpoints"][0]["port"], service["spec"]["ports"][0]["name"])
        self.assertEqual(service["spec"]["ports"][0]["targetPort"], "admin")
        self.assertTrue(service["spec"]["publishNotReadyAddresses"])
        self.assertEqual(service["spec"]["selector"], one(objects, "Deployment", "daypass", "daypass")["spec"]["selector"]["matchLabels"])

    def test_labels_by_which_they_are_found(self):
        objects = render(VALUES["all"])
        for kind in ("ServiceMonitor", "PrometheusRule"):
            self.assertEqual(one(objects, kind, "daypass", "daypass")["metadata"]["labels"]["release"], "prometheus")
        dashboard = one(objects, "ConfigMap", "daypass-dashboard", "daypass")["metadata"]
        self.assertEqual(dashboard["labels"]["grafana_dashboard"], "1")
        self.assertEqual(dashboard["annotations"], {"folder": "Clusters"})

    def test_what_there_is_an_alert_for(self):
        def alerts(objects):
            rules = one(objects, "PrometheusRule", "daypass", "daypass")["spec"]["groups"][0]["rules"]
            return {rule["alert"]: rule for rule in rules}

        found = alerts(self.objects())
        self.assertLessEqual({"DaypassMemberOverdue", "DaypassReaperNotRunning", "DaypassCertificateExpiring"}, set(found))
        self.assertIn("< 1209600", found["DaypassCertificateExpiring"]["expr"])
        for rule in found.values():
            self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
            self.assertTrue(rule["annotations"]["summary"] and rule["annotations"]["description"])
        self.assertIn("DaypassWallsDown", found)
        self.assertNotIn("DaypassWallsDown", alerts(self.objects("walls: {enabled: false}")))

    def test_every_expression_is_promql(self):
        expressions = list(self.expressions())
        self.assertGreater(len(expressions), 15)
        for expression in expressions:
            with self.subTest(expression):
                promql_parser.parse(expression)


class HelmTest(unittest.TestCase):
    templates = ["tests/member.yaml"]

    def hooks(self, values=""):
        return [obj for obj in render(values, tests=True) if "helm.sh/hook" in obj["metadata"].get("annotations", {})]

    def test_it_leaves_nothing_when_it_succeeds(self):
        for obj in self.hooks():
            annotations = obj["metadata"]["annotations"]
            self.assertEqual(annotations["helm.sh/hook"], "test")
            self.assertLessEqual({"before-hook-creation", "hook-succeeded"}, set(annotations["helm.sh/hook-delete-policy"].split(",")))

    def test_it_may_do_what_a_manager_of_one_role_may(self):
        objects = self.hooks()
        (account,), (binding,), (pod,) = (of_kind(objects, kind) for kind in ("ServiceAccount", "RoleBinding", "Pod"))
        self.assertEqual(len(objects), 3)
        self.assertEqual(binding["metadata"]["namespace"], "daypass-projects-view")
        self.assertEqual(binding["roleRef"]["name"], "daypass-engines-manage")
        self.assertEqual([subject["name"] for subject in binding["subjects"]], [account["metadata"]["name"]])
        self.assertEqual(pod["spec"]["serviceAccountName"], account["metadata"]["name"])
        self.assertIn("--role=projects-view", pod["spec"]["containers"][0]["args"])
        (binding,) = of_kind(self.hooks("test: {role: nodes-view}"), "RoleBinding")
        self.assertEqual(binding["metadata"]["namespace"], "daypass-nodes-view")

    def test_its_pod_gets_no_request_and_no_key(self):
        (pod,) = of_kind(self.hooks(), "Pod")
        selector = one(render(), "Service", "daypass", "daypass")["spec"]["selector"]
        self.assertFalse(selector.items() <= pod["metadata"]["labels"].items())
        self.assertFalse(pod["spec"]["automountServiceAccountToken"])
        (volume,) = pod["spec"]["volumes"]
        sources = {kind: source for entry in volume["projected"]["sources"] for kind, source in entry.items()}
        self.assertEqual(sources["serviceAccountToken"]["audience"], "daypass")
        for values, secret, key in [
            ("", "daypass-tls", "tls.crt"),
            ("tls: {secretName: mine}", "mine", "tls.crt"),
            ("tls: {secretName: mine, caKey: ca.crt}", "mine", "ca.crt"),
            (Certificates.ISSUED, "daypass-serving", "tls.crt"),
        ]:
            (pod,) = of_kind(self.hooks(values), "Pod")
            sources = {kind: source for entry in pod["spec"]["volumes"][0]["projected"]["sources"] for kind, source in entry.items()}
            self.assertEqual(sources["secret"], {"name": secret, "items": [{"key": key, "path": "daypass.crt"}]})

    def test_none_without_a_role(self):
        self.assertEqual(self.hooks(VALUES["without"]), [])


class Notes(unittest.TestCase):
    """NOTES.txt, which `helm template` does not render; a dry run needs a cluster, so a copy of the chart has it as a ConfigMap."""

    def notes(self, values):
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "daypass"
            shutil.copytree(CHART, copy)
            (copy / "templates/NOTES.txt").rename(copy / "templates/_notes.tpl")
            text = (copy / "templates/_notes.tpl").read_text()
            (copy / "templates/_notes.tpl").write_text('{{ define "notes" }}' + text + "{{ end }}")
            (copy / "templates/notes.yaml").write_text('kind: Notes\ntext: {{ include "notes" . | toJson }}\n')
            done = helm("template", "daypass", str(copy), "-n", "daypass", "-s", "templates/notes.yaml", values=REQUIRED + values)
            self.assertEqual(done.returncode, 0, done.stderr)
            return yaml.safe_load(done.stdout)["text"]

    def test_the_next_three_commands(self):
        for values, ca in [
            ("managers: [{kind: ServiceAccount, namespace: default, name: owner}]", "get secret daypass-tls"),
            ("managers: [{kind: ServiceAccount, namespace: default, name: owner}]\n" + Certificates.ISSUED, None),
            ("tls: {secretName: mine, caKey: ca.crt}", "get secret mine"),
        ]:
            notes = self.notes(values)
            self.assertEqual(re.findall(r"^(\d)\. ", notes, re.M), ["1", "2", "3"])
            self.assertIn("https://daypass.example.com/processing/data-planes/eu-1/members", notes)
            self.assertEqual("--cacert daypass-ca.crt" in notes, ca is not None)
            if ca:
                self.assertIn(ca, notes)

    def test_what_is_missing_is_said(self):
        notes = self.notes(VALUES["without"])
        self.assertIn("It has no role", notes)
        self.assertIn("WARNING: walls.enabled is false", notes)


CASES = [case for case in list(globals().values()) if isinstance(case, type) and issubclass(case, unittest.TestCase)]


if __name__ == "__main__":
    unittest.main()
