"""How clients reach Daypass, and how Prometheus monitors it."""

import json
import re
import subprocess
import unittest

import promql_parser

from support import HERE, VALUES, of_kind, one, render


class Exposed(unittest.TestCase):
    templates = ["ingress.yaml", "httproute.yaml", "tlsroute.yaml"]

    def test_off(self):
        self.assertEqual(of_kind(render(), "Ingress", "HTTPRoute", "TLSRoute", "BackendTLSPolicy"), [])

    def test_ingress(self):
        values = """
server: {publicUrl: 'https://daypass.example.com:8443/'}
ingress: {enabled: true, className: nginx, tlsSecretName: edge, annotations: {a: b}}
"""
        ingress = one(render(values), "Ingress", "daypass", "daypass")
        self.assertEqual(ingress["metadata"]["annotations"], {"a": "b"})
        spec = ingress["spec"]
        self.assertEqual(spec["ingressClassName"], "nginx")
        self.assertEqual(spec["tls"], [{"hosts": ["daypass.example.com"], "secretName": "edge"}])
        (rule,) = spec["rules"]
        self.assertEqual(rule["host"], "daypass.example.com")
        self.assertEqual(
            rule["http"]["paths"][0]["backend"]["service"], {"name": "daypass", "port": {"name": "https"}}
        )
        plain = one(render("ingress: {enabled: true}"), "Ingress", "daypass", "daypass")["spec"]
        self.assertEqual(list(plain), ["rules"])

    def test_the_gateway_may_have_a_host_of_its_own(self):
        edge = "{enabled: true, parentRefs: [{name: edge}]}"
        values = f"""
server: {{publicUrl: 'https://daypass.example.com:8443/'}}
gateway: {{publicUrl: 'https://gw.example.com:8443'}}
kubeconfig: {{mode: gateway}}
ingress: {{enabled: true, tlsSecretName: edge}}
httpRoute: {edge}
tlsRoute: {edge}
tls: {{certManager: {{enabled: true, issuerRef: {{name: ca}}}}}}
"""
        hosts = ["daypass.example.com", "gw.example.com"]
        objects = render(values)
        ingress = one(objects, "Ingress", "daypass", "daypass")["spec"]
        self.assertEqual(ingress["tls"][0]["hosts"], hosts)
        self.assertEqual([rule["host"] for rule in ingress["rules"]], hosts)
        self.assertEqual(ingress["rules"][0]["http"], ingress["rules"][1]["http"])
        for kind in ("HTTPRoute", "TLSRoute"):
            self.assertEqual(one(objects, kind, "daypass", "daypass")["spec"]["hostnames"], hosts)
        names = one(objects, "Certificate", "daypass", "daypass")["spec"]["dnsNames"]
        self.assertEqual(names[:2], hosts)
        direct = values.replace("{mode: gateway}", "{mode: direct}")
        self.assertEqual(
            one(render(direct), "TLSRoute", "daypass", "daypass")["spec"]["hostnames"], hosts[:1]
        )

    def test_http_route_is_encrypted_again(self):
        objects = render(
            "httpRoute: {enabled: true, parentRefs: [{name: edge, namespace: gateways}]}\nservice: {port: 443}"
        )
        spec = one(objects, "HTTPRoute", "daypass", "daypass")["spec"]
        self.assertEqual(
            spec["parentRefs"],
            [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge", "namespace": "gateways"}],
        )
        self.assertEqual(spec["hostnames"], ["daypass.example.com"])
        backend = {"group": "", "kind": "Service", "name": "daypass", "port": 443, "weight": 1}
        self.assertEqual(spec["rules"][0]["backendRefs"], [backend])
        self.assertNotIn("timeouts", spec["rules"][0])
        gateway = "httpRoute: {enabled: true, parentRefs: [{name: edge}]}\nkubeconfig: {mode: gateway}"
        spec = one(render(gateway), "HTTPRoute", "daypass", "daypass")["spec"]
        self.assertEqual(spec["rules"][0]["timeouts"], {"request": "0s"})
        policy = one(objects, "BackendTLSPolicy", "daypass", "daypass")["spec"]
        self.assertEqual(
            policy["targetRefs"], [{"group": "", "kind": "Service", "name": "daypass", "sectionName": "https"}]
        )
        self.assertEqual(
            policy["validation"], {"hostname": "daypass.example.com", "wellKnownCACertificates": "System"}
        )

    def test_http_route_with_a_ca_and_without_a_policy(self):
        route = "httpRoute: {{enabled: true, parentRefs: [{{name: edge}}], backendTLSPolicy: {}}}"
        policy = one(render(route.format("{caConfigMap: ca}")), "BackendTLSPolicy", "daypass", "daypass")["spec"][
            "validation"
        ]
        self.assertEqual(policy["caCertificateRefs"], [{"group": "", "kind": "ConfigMap", "name": "ca"}])
        self.assertNotIn("wellKnownCACertificates", policy)
        self.assertEqual(of_kind(render(route.format("{enabled: false}")), "BackendTLSPolicy"), [])

    def test_tls_route(self):
        spec = one(
            render("tlsRoute: {enabled: true, parentRefs: [{name: edge, sectionName: tls}]}"),
            "TLSRoute",
            "daypass",
            "daypass",
        )["spec"]
        self.assertEqual(spec["hostnames"], ["daypass.example.com"])
        self.assertEqual(spec["parentRefs"][0]["sectionName"], "tls")
        self.assertEqual(spec["rules"][0]["backendRefs"][0]["port"], 8443)


class Networks(unittest.TestCase):
    templates = ["networkpolicy.yaml"]

    def spec(self, values):
        return one(render(f"networkPolicy: {{enabled: true, {values}}}"), "NetworkPolicy", "daypass", "daypass")[
            "spec"
        ]

    def test_off(self):
        self.assertEqual(of_kind(render(), "NetworkPolicy"), [])

    def test_by_default_everybody_reaches_the_api_and_nobody_the_rest(self):
        spec = self.spec("")
        self.assertEqual(spec["podSelector"], one(render(), "Deployment", "daypass", "daypass")["spec"]["selector"])
        self.assertEqual(spec["policyTypes"], ["Ingress"])
        self.assertEqual(spec["ingress"], [{"ports": [{"port": "https", "protocol": "TCP"}]}])

    def test_peers_reach_what_they_are_allowed(self):
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
        return render(
            "metrics: {serviceMonitor: {enabled: true}, prometheusRule: {enabled: true}, dashboard: {enabled: true}}\n"
            + more
        )

    def expressions(self):
        (rule,) = of_kind(render(VALUES["all"] + "kubeconfig: {mode: gateway}"), "PrometheusRule")
        for group in rule["spec"]["groups"]:
            for alert in group["rules"]:
                yield alert["expr"]
        dashboard = one(self.objects(), "ConfigMap", "daypass-dashboard", "daypass")["data"]["daypass.json"]
        for panel in json.loads(dashboard)["panels"]:
            for target in panel["targets"]:
                yield target["expr"].replace("$__rate_interval", "1m")

    def test_off(self):
        self.assertEqual(of_kind(render(), "ServiceMonitor", "PrometheusRule", "ConfigMap"), [])

    def test_the_monitor_selects_its_service_and_that_selects_the_pods(self):
        objects = self.objects()
        service = one(objects, "Service", "daypass-metrics", "daypass")
        monitor = one(objects, "ServiceMonitor", "daypass", "daypass")["spec"]
        self.assertLessEqual(monitor["selector"]["matchLabels"].items(), service["metadata"]["labels"].items())
        api = one(objects, "Service", "daypass", "daypass")
        self.assertFalse(monitor["selector"]["matchLabels"].items() <= api["metadata"]["labels"].items())
        self.assertEqual(monitor["endpoints"][0]["port"], service["spec"]["ports"][0]["name"])
        self.assertEqual(service["spec"]["ports"][0]["targetPort"], "admin")
        self.assertTrue(service["spec"]["publishNotReadyAddresses"])
        self.assertEqual(
            service["spec"]["selector"],
            one(objects, "Deployment", "daypass", "daypass")["spec"]["selector"]["matchLabels"],
        )

    def test_the_operator_can_read_them(self):
        """By its own Go types; no package holds its CRDs."""
        objects = of_kind(render(VALUES["all"]), "ServiceMonitor", "PrometheusRule")
        self.assertEqual(len(objects), 2)
        command, folder = ["go", "run", "."], HERE / "prometheus"
        done = subprocess.run(
            command, cwd=folder, input=json.dumps(objects), capture_output=True, text=True, timeout=900
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_given_labels_are_on_the_objects(self):
        objects = render(VALUES["all"])
        for kind in ("ServiceMonitor", "PrometheusRule"):
            self.assertEqual(one(objects, kind, "daypass", "daypass")["metadata"]["labels"]["release"], "prometheus")
        dashboard = one(objects, "ConfigMap", "daypass-dashboard", "daypass")["metadata"]
        self.assertEqual(dashboard["labels"]["grafana_dashboard"], "1")
        self.assertEqual(dashboard["annotations"], {"folder": "Clusters"})

    def test_alerts(self):
        def alerts(objects):
            rules = one(objects, "PrometheusRule", "daypass", "daypass")["spec"]["groups"][0]["rules"]
            return {rule["alert"]: rule for rule in rules}

        found = alerts(self.objects())
        self.assertLessEqual(
            {"DaypassMemberOverdue", "DaypassReaperNotRunning", "DaypassCertificateExpiring"}, set(found)
        )
        self.assertIn("< 1209600", found["DaypassCertificateExpiring"]["expr"])
        for alert, metric in [
            ("DaypassRequestsRefused", "daypass_http_requests_refused_total"),
            ("DaypassConnectionsEvicted", "daypass_connections_evicted_total"),
        ]:
            self.assertIn(metric, found[alert]["expr"])
            self.assertEqual(found[alert]["for"], "10m")
        for rule in found.values():
            self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
            self.assertTrue(rule["annotations"]["summary"] and rule["annotations"]["description"])
        self.assertNotIn("DaypassFeedStale", found, "all kubeconfigs are direct")
        of_gateway = alerts(self.objects("kubeconfig: {mode: gateway}"))
        self.assertLessEqual({"DaypassFeedStale", "DaypassStreamCutLate"}, set(of_gateway))
        self.assertIn('reason="STALE"', of_gateway["DaypassFeedStale"]["expr"])
        self.assertNotIn("DaypassIssuerUnavailable", found, "nobody signs in by OpenID Connect")
        issuer = alerts(render(VALUES["all"]))["DaypassIssuerUnavailable"]
        self.assertIn("daypass_oidc_keys_fetched_timestamp_seconds", issuer["expr"])
        self.assertIn("{{ $labels.issuer }}", issuer["annotations"]["summary"])
        self.assertIn("DaypassWallsDown", found)
        self.assertNotIn("DaypassWallsDown", alerts(self.objects("walls: {enabled: false}")))

    def test_every_expression_is_promql(self):
        expressions = list(self.expressions())
        self.assertGreater(len(expressions), 15)
        for expression in expressions:
            with self.subTest(expression):
                promql_parser.parse(expression)
