"""Which values are valid, and who may do what."""

import unittest

import yaml

from support import CHART, DAYPASS, REQUIRED, bindings_to, helm, of_kind, one, render


class Values(unittest.TestCase):
    """Each bad value is refused with a message that names it."""

    templates = ["validate.yaml"]

    def refused(self, values, message, namespace="daypass"):
        done = helm("template", "daypass", str(CHART), "--namespace", namespace, values=values)
        self.assertNotEqual(done.returncode, 0, f"accepted: {values}")
        self.assertIn(message, done.stderr)

    def test_required(self):
        self.refused("", "dataPlane.id is required")
        self.refused("dataPlane: {id: a}", "server.publicUrl is required")
        for mode in ["direct", "both"]:
            values = f"{{dataPlane: {{id: a}}, server: {{publicUrl: 'https://b'}}, kubeconfig: {{mode: {mode}}}}}"
            self.refused(values, f"dataPlane.server is required with kubeconfig.mode {mode}")

    def test_schema(self):
        for values, message in [
            ("dataPlanes: {}", "'dataPlanes'"),
            ("dataPlane: {id: 'a/b'}", "/dataPlane/id"),
            ("dataPlane: {server: 'http://a'}", "/dataPlane/server"),
            ("kubeconfig: {mode: neither}", "/kubeconfig/mode"),
            ("roles: {a: {kubeconfigMode: both}}", "/roles/a/kubeconfigMode"),
            ("roles: {a: {maxDuration: 49h}}", "/roles/a/maxDuration"),
            ("roles: {a: {maxDuration: 4}}", "/roles/a/maxDuration"),
            ("roles: {a: {maxDuration: 48h1m}}", "/roles/a/maxDuration"),
            ("roles: {a: {maxDuration: 0h}}", "/roles/a/maxDuration"),
            ("server: {publicUrl: 'https://a?b'}", "/server/publicUrl"),
            ("server: {trustedProxies: ['10.0.0.1']}", "/server/trustedProxies/0"),
            ("managers: [{kind: Robot, name: a}]", "/managers/0/kind"),
            ("managers: [{kind: User}]", "/managers/0"),
            ("managers: [{kind: User, name: a, roles: []}]", "/managers/0/roles"),
            ("roles: {Bad_Id: {name: a}}", "Bad_Id"),
            (f"roles: {{{'a' * 56}: {{name: a}}}}", "a" * 56),
            ("roles: {a: {rules: [{resources: [pods]}]}}", "/roles/a/rules/0"),
            ("roles: {a: {namespaces: []}}", "/roles/a/namespaces"),
            ("roles: {logs-view: {namespaces: []}}", "/roles/logs-view/namespaces"),
            ("roles: {logs-view: {namespaces: null}}", "/roles/logs-view/namespaces"),
            ("dataPlane: {proxyUrl: 'socks5h://a:1'}", "/dataPlane/proxyUrl"),
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

    def test_numbers_for_those_who_get_rights(self):
        for values, path in [
            ("managers: [{kind: User, name: 0012345}]", "/managers/0/name"),
            ("managers: [{kind: ServiceAccount, name: a, namespace: 010}]", "/managers/0/namespace"),
            ("managers: [{kind: User, name: a, roles: [010]}]", "/managers/0/roles/0"),
            ("accessTokens: {generateBy: [{kind: User, name: 0x1F}]}", "/accessTokens/generateBy/0/name"),
            ("accessTokens: {manageBy: [{kind: User, name: 1e3}]}", "/accessTokens/manageBy/0/name"),
            ("roles: {a: {clusterRoles: [0755]}}", "/roles/a/clusterRoles/0"),
            ("roles: {a: {clusterRoles: [view], namespaces: [010]}}", "/roles/a/namespaces/0"),
            ("server: {tokenAudience: 010}", "/server/tokenAudience"),
            ("walls: {apiAudiences: [010]}", "/walls/apiAudiences/0"),
            ("dataPlane: {id: 010}", "/dataPlane/id"),
            ("commonLabels: {version: 1.0}", "/commonLabels/version"),
        ]:
            with self.subTest(values):
                self.refused(values, f"at '{path}': got number, want")
        manager = "managers[0].kind=User,managers[0].name=0012345"
        done = helm("template", "daypass", str(CHART), "--set-string", manager, values=REQUIRED)
        self.assertIn('name: "0012345"', done.stdout)
        for proxy in ("http://a", "https://a", "socks5://a:1"):
            render({**yaml.safe_load(REQUIRED), "dataPlane": {"id": "a", "server": "https://a", "proxyUrl": proxy}})

    def test_release_names_that_are_names_of_roles(self):
        fixed = ["daypass-role-storage-view", "daypass-role-other", "daypass-engines-manage", "daypass-roles-manage"]
        for release in [*fixed, "daypass-tokens-generate", "daypass-tokens-manage"]:
            done = helm("template", release, str(CHART), values=REQUIRED)
            self.assertIn(f"the release name {release} makes objects called {release}", done.stderr)
        render(release="daypass-roles")

    def test_rules_that_a_schema_cannot_express(self):
        for values, message in [
            ("managers: [{kind: ServiceAccount, name: a}]", "managers[0].namespace"),
            ("roles: {nodes-view: {kubeconfigMode: gateway}}", "roles.nodes-view.kubeconfigMode is gateway, but"),
            ("managers: [{kind: User, name: a, namespace: b}]", "managers[0].namespace"),
            ("managers: [{kind: User, name: a, roles: [nope]}]", "managers[0].roles: nope"),
            ("managers: [{kind: ServiceAccount, namespace: daypass-nodes-view, name: a}]", "managers[0]"),
            ("managers: [{kind: Group, name: 'system:serviceaccounts:daypass-nodes-view'}]", "managers[0]"),
            ("roles: {a: {name: a}}", "roles.a has neither rules nor clusterRoles"),
            ("roles: {a: {clusterRoles: [view], namespaces: [daypass-b]}}", "roles.a.namespaces: daypass-b"),
            ("walls: {apiAudiences: [a, daypass]}", "server.tokenAudience"),
            (
                "roles: {a: {clusterRoles: [view], namespaces: [daypass]}}",
                "roles.a.namespaces: daypass is Daypass's own",
            ),
            ("managers: [{kind: User, name: a, roles: [logs-view]}]", "managers[0].roles: logs-view"),
            ("test: {role: logs-view}", "test.role: logs-view"),
            ("tls: {caKey: ca.crt}", "tls.caKey"),
            ("tls: {atProxy: {caConfigMap: a}}", "tls.atProxy.caConfigMap"),
            ("tls: {certManager: {enabled: true}}", "tls.certManager.issuerRef.name"),
            ("tls: {secretName: daypass-tls, certManager: {enabled: true, issuerRef: {name: a}}}", "tls.secretName"),
            ("httpRoute: {enabled: true}", "httpRoute.parentRefs"),
            ("tlsRoute: {enabled: true}", "tlsRoute.parentRefs"),
            ("metrics: {prometheusRule: {enabled: true}}", "metrics.prometheusRule"),
            ("metrics: {dashboard: {enabled: true}}", "metrics.dashboard"),
            ("test: {role: nope}", "test.role: nope"),
            ('ingress: {enabled: true}\nserver: {publicUrl: "https://a/b"}', "server.publicUrl has a path"),
            ('ingress: {enabled: true}\nserver: {publicUrl: "https://192.0.2.1"}', "server.publicUrl has an address"),
            (
                'ingress: {enabled: true}\nserver: {publicUrl: "https://[2001:db8::1]:8443"}',
                "server.publicUrl has an address",
            ),
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
            if "nonResourceURLs" in rule:
                self.assertEqual(rule, {"nonResourceURLs": ["/.well-known/openid-configuration"], "verbs": ["get"]})
                continue
            for names in (rule["apiGroups"], rule["resources"], rule["verbs"]):
                self.assertNotIn("*", names)
            self.assertFalse({"impersonate", "bind", "escalate"} & set(rule["verbs"]), rule)
            if "rbac.authorization.k8s.io" in rule["apiGroups"]:
                self.assertLessEqual(set(rule["verbs"]), {"get", "list", "watch"})

    def test_no_rights_to_secrets_outside_role_namespaces(self):
        for namespace, rule in self.rules():
            if "secrets" in rule.get("resources", []) and not namespace.startswith("daypass-"):
                self.assertEqual(namespace, "daypass")
                self.assertTrue(rule["verbs"] == ["create"] or rule["resourceNames"] == ["daypass-tls"])

    def test_every_rule_says_who_needs_it(self):
        for template in ("rbac.yaml", "roles/namespaces.yaml", "roles/manage.yaml", "managers.yaml", "tokens.yaml"):
            lines = (CHART / "templates" / template).read_text().splitlines()
            for before, line in zip(lines, lines[1:]):
                if line.strip().startswith(("- apiGroups:", "- nonResourceURLs:")):
                    self.assertRegex(before, r"^ +# ", f"{template}: {line}")


class Managers(unittest.TestCase):
    templates = ["managers.yaml"]

    def test_managers_of_all_roles_and_of_some(self):
        objects = render("""
managers:
  - {kind: User, name: anna}
  - {kind: ServiceAccount, namespace: default, name: owner}
  - {kind: Group, name: storage, roles: [storage-view]}
  - {kind: User, name: bob, roles: [storage-view, nodes-view]}
""")
        self.assertEqual(
            bindings_to(objects, "daypass-engines-manage"),
            [
                ("ClusterRoleBinding", "", ["anna", "owner"]),
                ("RoleBinding", "daypass-nodes-view", ["bob"]),
                ("RoleBinding", "daypass-storage-view", ["storage", "bob"]),
            ],
        )

    def test_no_managers_no_bindings(self):
        self.assertEqual(bindings_to(render(), "daypass-engines-manage"), [])


class AccessTokens(unittest.TestCase):
    templates = ["tokens.yaml"]

    def test_privileges_are_bound_in_daypasss_own_namespace(self):
        objects = render(
            "accessTokens: {generateBy: [{kind: Group, name: ci}], "
            "manageBy: [{kind: ServiceAccount, namespace: ops, name: bot}]}"
        )
        self.assertEqual(bindings_to(objects, "daypass-tokens-generate"), [("RoleBinding", "daypass", ["ci"])])
        self.assertEqual(bindings_to(objects, "daypass-tokens-manage"), [("RoleBinding", "daypass", ["bot"])])

    def test_nobody_has_them_and_nobody_may_write_the_objects(self):
        objects = render()
        for name, verbs in [("generate", ["generate"]), ("manage", ["generate", "manage"])]:
            self.assertEqual(bindings_to(objects, f"daypass-tokens-{name}"), [])
            (rule,) = one(objects, "ClusterRole", f"daypass-tokens-{name}")["rules"]
            self.assertEqual((rule["resources"], rule["verbs"]), (["personalaccesstokens"], verbs))


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

    def test_a_role_with_namespaces_is_bound_only_there(self):
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

    def test_roles_read_logs_only_in_named_namespaces(self):
        objects = render()
        self.assertNotIn("logs-view", yaml.safe_dump_all(objects))
        for role in of_kind(objects, "ClusterRole"):
            for rule in role["rules"]:
                resources = set(rule.get("resources", []))
                self.assertFalse(
                    resources & {"*", "*/*", "pods/*", "*/log", "pods/log", "nodes/proxy", "nodes/log"},
                    role["metadata"],
                )
        objects = render("roles: {logs-view: {namespaces: [blue, green]}}")
        group = ["system:serviceaccounts:daypass-logs-view"]
        self.assertEqual(
            bindings_to(objects, "daypass-role-logs-view"),
            [("RoleBinding", "blue", group), ("RoleBinding", "green", group)],
        )
        self.assertIn("pods/log", one(objects, "ClusterRole", "daypass-role-logs-view")["rules"][0]["resources"])

    def test_role_that_runs_commands_is_off_and_needs_namespaces(self):
        both = "kubeconfig: {mode: both}\n"
        for values in ("", "roles: {pods-debug: {enabled: true}}", "roles: {pods-debug: {namespaces: [blue]}}"):
            self.assertNotIn("pods-debug", yaml.safe_dump_all(render(both + values)), values)
        enabled = "roles: {pods-debug: {enabled: true, namespaces: [blue]}}"
        with self.assertRaisesRegex(AssertionError, "pods-debug.kubeconfigMode is gateway, but"):
            render("kubeconfig: {mode: direct}\n" + enabled)
        objects = render(both + enabled)
        group = ["system:serviceaccounts:daypass-pods-debug"]
        self.assertEqual(bindings_to(objects, "daypass-role-pods-debug"), [("RoleBinding", "blue", group)])
        rules = one(objects, "ClusterRole", "daypass-role-pods-debug")["rules"]
        self.assertIn("pods/exec", [resource for rule in rules for resource in rule["resources"]])

    def test_role_has_a_longest_duration(self):
        key = "daypass.dev/max-duration"
        objects = render("roles: {nodes-view: {maxDuration: 1h30m}}")
        self.assertEqual(one(objects, "Namespace", "daypass-nodes-view")["metadata"]["annotations"][key], "1h30m")
        self.assertNotIn(key, one(objects, "Namespace", "daypass-storage-view")["metadata"]["annotations"])
        debug = "roles: {pods-debug: {enabled: true, namespaces: [blue]}}"
        objects = render("kubeconfig: {mode: both}\n" + debug)
        self.assertEqual(one(objects, "Namespace", "daypass-pods-debug")["metadata"]["annotations"][key], "8h")


class Walls(unittest.TestCase):
    templates = ["walls.yaml"]

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

    def test_policies_name_daypass_under_another_release_name(self):
        policies = of_kind(render(release="other", namespace="ops"), "ValidatingAdmissionPolicy")
        self.assertIn("system:serviceaccount:ops:other-daypass", yaml.safe_dump_all(policies))


class Kubeconfigs(unittest.TestCase):
    """Gateway kubeconfigs need no address of the API server, and short tokens."""

    templates = ["deployment.yaml", "walls.yaml", "roles/namespaces.yaml"]
    GATEWAY = {"dataPlane": {"id": "a"}, "server": {"publicUrl": "https://b"}}

    def arguments(self, objects):
        (container,) = one(objects, "Deployment", "daypass", "daypass")["spec"]["template"]["spec"]["containers"]
        return container["args"]

    def tokens_live(self, objects, seconds):
        policy = one(objects, "ValidatingAdmissionPolicy", "daypass-role-tokens")
        return any(rule["expression"].endswith(f"<= {seconds}") for rule in policy["spec"]["validations"])

    def test_without_the_address_of_the_api_server_members_get_the_gateway(self):
        objects = render(self.GATEWAY)
        arguments = self.arguments(objects)
        self.assertIn("--kubeconfig-mode=gateway", arguments)
        self.assertFalse([argument for argument in arguments if argument.startswith("--data-plane-server")])
        self.assertTrue(self.tokens_live(objects, 3600))

    def test_an_upgrade_with_that_address_keeps_direct_kubeconfigs(self):
        for values in ["", "kubeconfig: null", "kubeconfig: {mode: ''}", "kubeconfig: {mode: direct}"]:
            with self.subTest(values):
                objects = render(values)
                self.assertIn("--kubeconfig-mode=direct", self.arguments(objects))
                self.assertIn("--data-plane-server=https://api.example.com:6443", self.arguments(objects))
                self.assertTrue(self.tokens_live(objects, 172800))

    def test_the_mode_wins_over_the_address(self):
        objects = render("kubeconfig: {mode: gateway}")
        self.assertIn("--kubeconfig-mode=gateway", self.arguments(objects))
        self.assertTrue(self.tokens_live(objects, 3600))

    def test_limits_of_the_gateway(self):
        gateway = {
            "maxStaleness": 20, "memberRequests": 1, "requests": 2, "memberStreams": 3, "streams": 4, "audit": "all",
            "drainSeconds": 100, "publicUrl": "https://gw.example.com",
        }
        objects = render({**self.GATEWAY, "gateway": gateway, "shutdownDelaySeconds": 7})
        expected = {
            "--gateway-max-staleness-seconds=20", "--gateway-member-requests=1", "--gateway-requests=2",
            "--gateway-public-url=https://gw.example.com",
            "--gateway-member-streams=3", "--gateway-streams=4", "--gateway-audit=all", "--gateway-drain-seconds=100",
        }
        self.assertLessEqual(expected, set(self.arguments(objects)))
        spec = one(objects, "Deployment", "daypass", "daypass")["spec"]["template"]["spec"]
        self.assertEqual(spec["terminationGracePeriodSeconds"], 7 + 105 + 10)
        direct = self.arguments(render("kubeconfig: {mode: direct}"))
        self.assertFalse([argument for argument in direct if argument.startswith("--gateway")])
        for wrong in ({"publicUrl": "https://a/b"}, {"publicUrl": "http://a"}, {"publicUrl": "https://B:1"}):
            with self.subTest(wrong), self.assertRaisesRegex(Exception, "publicUrl"):
                render({**self.GATEWAY, "gateway": wrong})
        for wrong in ({"maxStaleness": 4}, {"maxStaleness": 61}, {"audit": "some"}, {"streams": 0}, {"x": 1}):
            with self.subTest(wrong), self.assertRaisesRegex(Exception, "gateway"):
                render({**self.GATEWAY, "gateway": wrong})

    def test_with_both_a_role_says_which(self):
        objects = render("kubeconfig: {mode: both}\nroles: {nodes-view: {kubeconfigMode: direct}}")
        self.assertIn("--kubeconfig-mode=both", self.arguments(objects))
        self.assertTrue(self.tokens_live(objects, 172800))
        key = "daypass.dev/kubeconfig-mode"
        says = {
            obj["metadata"]["name"]: obj["metadata"]["annotations"][key]
            for obj in of_kind(objects, "Namespace")
            if key in obj["metadata"]["annotations"]
        }
        self.assertEqual(says, {"daypass-nodes-view": "direct"})


class FlowControl(unittest.TestCase):
    templates = ["flowcontrol.yaml"]

    def test_each_schema_matches_daypass_alone_and_has_a_level(self):
        objects = render(release="other", namespace="ops")
        levels = {level["metadata"]["name"]: level["spec"] for level in of_kind(objects, "PriorityLevelConfiguration")}
        schemas = {schema["metadata"]["name"]: schema["spec"] for schema in of_kind(objects, "FlowSchema")}
        self.assertEqual(sorted(levels), ["other-daypass", "other-daypass-ends"])
        self.assertEqual(
            {name: spec["priorityLevelConfiguration"]["name"] for name, spec in schemas.items()},
            {name: name for name in levels},
        )
        account = {"kind": "ServiceAccount", "serviceAccount": {"name": "other-daypass", "namespace": "ops"}}
        for spec in schemas.values():
            self.assertEqual([rule["subjects"] for rule in spec["rules"]], [[account]])
        # The narrow one first, and both before Kubernetes' own that match too.
        self.assertLess(
            schemas["other-daypass-ends"]["matchingPrecedence"], schemas["other-daypass"]["matchingPrecedence"]
        )
        self.assertLess(schemas["other-daypass"]["matchingPrecedence"], 900)

    def test_off(self):
        self.assertEqual(
            of_kind(render("flowControl: {enabled: false}"), "FlowSchema", "PriorityLevelConfiguration"), []
        )
