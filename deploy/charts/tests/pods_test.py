"""The pods, and what they run with."""

import unittest

import yaml

from support import ISSUED, VALUES, containers, helm, of_kind, one, render


class Pods(unittest.TestCase):
    templates = ["deployment.yaml", "serviceaccount.yaml"]

    def pod(self, values=""):
        return one(render(values), "Deployment", "daypass", "daypass")["spec"]["template"]["spec"]

    def test_restricted(self):
        """The profile `restricted` of Pod Security, and a read-only root filesystem."""
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
                self.assertLessEqual(
                    {key for volume in pod["volumes"] for key in volume}, {"name", "projected", "secret", "configMap"}
                )
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
        self.assertEqual(
            deployment["strategy"], {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
        )
        pod = deployment["template"]["spec"]
        self.assertIn("--shutdown-delay-seconds=20", pod["containers"][0]["args"])
        # The delay, the 25 s that serve/ gives requests in flight, and some to spare.
        self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], 20 + 25 + 5)

    def test_probes(self):
        (container,) = self.pod()["containers"]
        self.assertEqual(
            [port for port in container["ports"] if port["name"] == "admin"],
            [{"name": "admin", "containerPort": 8080}],
        )
        for probe, path in [("startup", "/livez"), ("readiness", "/readyz"), ("liveness", "/livez")]:
            self.assertEqual(container[f"{probe}Probe"]["httpGet"], {"path": path, "port": "admin"})

    def test_spread(self):
        ours = one(render(), "Deployment", "daypass", "daypass")["spec"]["selector"]
        constraints = self.pod()["topologySpreadConstraints"]
        self.assertEqual(
            [c["topologyKey"] for c in constraints], ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        )
        for constraint in constraints:
            self.assertEqual(constraint["labelSelector"], ours)
            self.assertEqual(constraint["whenUnsatisfiable"], "ScheduleAnyway")
            self.assertEqual(constraint["matchLabelKeys"], ["pod-template-hash"])
        own = "{topologyKey: rack, maxSkew: 2, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}}"
        self.assertEqual(
            self.pod(f"topologySpreadConstraints: [{own}]")["topologySpreadConstraints"], [yaml.safe_load(own)]
        )
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

    def test_a_proxys_certificate(self):
        route = "httpRoute: {enabled: true, parentRefs: [{name: edge}]}"
        self.assertNotIn("--tls-at-proxy", self.pod()["containers"][0]["args"])
        for values in ("tls: {atProxy: {enabled: true}}", route):
            args = self.pod(values)["containers"][0]["args"]
            self.assertIn("--tls-at-proxy", args)
            self.assertFalse([arg for arg in args if arg.startswith("--proxy-ca-file")])
        pod = self.pod("tls: {atProxy: {caConfigMap: edge-ca}}\n" + route)
        self.assertIn("--proxy-ca-file=/etc/daypass/proxy/ca.crt", pod["containers"][0]["args"])
        (config,) = [volume["configMap"] for volume in pod["volumes"] if "configMap" in volume]
        self.assertEqual(config["name"], "edge-ca")

    def test_own_token(self):
        self.assertIs(one(render(), "ServiceAccount", "daypass", "daypass")["automountServiceAccountToken"], False)
        pod = self.pod()
        self.assertIs(pod["automountServiceAccountToken"], False)
        (token,) = [s for s in pod["volumes"][0]["projected"]["sources"] if "serviceAccountToken" in s]
        # The API server extends a token of 3607 s to a year.
        self.assertEqual(token["serviceAccountToken"]["expirationSeconds"], 3600)

    def test_image(self):
        digest = "sha256:" + "0" * 64
        image = self.pod(f"image: {{repository: r.example.com/daypass, tag: '1', digest: '{digest}'}}")["containers"][
            0
        ]
        self.assertEqual(image["image"], f"r.example.com/daypass@{digest}")


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

    def test_the_service_serves_https_only(self):
        objects = render("service: {type: LoadBalancer, port: 443, annotations: {a: b}}")
        service = one(objects, "Service", "daypass", "daypass")
        self.assertEqual(service["metadata"]["annotations"], {"a": "b"})
        self.assertEqual(service["spec"]["type"], "LoadBalancer")
        self.assertEqual(
            service["spec"]["ports"], [{"name": "https", "port": 443, "targetPort": "https", "appProtocol": "https"}]
        )
        # Only the API's port: this Service does not expose metrics.
        self.assertEqual(
            service["spec"]["selector"],
            one(objects, "Deployment", "daypass", "daypass")["spec"]["selector"]["matchLabels"],
        )
        self.assertEqual(len(of_kind(objects, "Service")), 1)


class Certificates(unittest.TestCase):
    templates = ["certificate.yaml"]

    def test_cert_manager_issues_it(self):
        objects = render(ISSUED)
        spec = one(objects, "Certificate", "daypass", "daypass")["spec"]
        self.assertEqual(spec["issuerRef"], {"name": "ca", "kind": "Issuer", "group": "cert-manager.io"})
        self.assertEqual(spec["dnsNames"], ["daypass.example.com", "daypass.daypass.svc", "alias.example.com"])
        pod = one(objects, "Deployment", "daypass", "daypass")["spec"]["template"]["spec"]
        self.assertIn(
            spec["secretName"], [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
        )
        # Daypass then makes no pair, and may not.
        self.assertFalse([arg for arg in pod["containers"][0]["args"] if arg.startswith("--tls-dns-name")])
        for rule in one(objects, "Role", "daypass", "daypass")["rules"]:
            self.assertNotIn("secrets", rule["resources"])

    def test_for_an_address_and_into_a_secret_of_that_name(self):
        values = """
tls: {secretName: mine, certManager: {enabled: true, issuerRef: {name: ca}}}
server: {publicUrl: 'https://192.0.2.1:8443'}
"""
        spec = one(render(values), "Certificate", "daypass", "daypass")["spec"]
        self.assertEqual(
            (spec["secretName"], spec["dnsNames"], spec["ipAddresses"]),
            ("mine", ["daypass.daypass.svc"], ["192.0.2.1"]),
        )

    def test_off(self):
        self.assertEqual(of_kind(render("tls: {secretName: mine}"), "Certificate"), [])


class HelmTest(unittest.TestCase):
    templates = ["tests/member.yaml"]

    def hooks(self, values=""):
        return [obj for obj in render(values, tests=True) if "helm.sh/hook" in obj["metadata"].get("annotations", {})]

    def test_a_successful_test_leaves_nothing(self):
        for obj in self.hooks():
            annotations = obj["metadata"]["annotations"]
            self.assertEqual(annotations["helm.sh/hook"], "test")
            self.assertLessEqual(
                {"before-hook-creation", "hook-succeeded"}, set(annotations["helm.sh/hook-delete-policy"].split(","))
            )

    def test_it_has_the_rights_of_a_manager_of_one_role(self):
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

    def test_its_pod_gets_no_requests_and_no_key(self):
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
            (ISSUED, "daypass-serving", "tls.crt"),
        ]:
            (pod,) = of_kind(self.hooks(values), "Pod")
            sources = {
                kind: source
                for entry in pod["spec"]["volumes"][0]["projected"]["sources"]
                for kind, source in entry.items()
            }
            self.assertEqual(sources["secret"], {"name": secret, "items": [{"key": key, "path": "daypass.crt"}]})

    def test_none_if_it_cannot_authenticate(self):
        self.assertEqual(
            self.hooks("server: {publicUrl: 'https://daypass.example.com', authMethods: [access-token]}"), []
        )

    def test_none_without_a_role(self):
        self.assertEqual(self.hooks(VALUES["without"]), [])
