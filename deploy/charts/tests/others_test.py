"""The chart in an umbrella chart, with missing and removed values, and under policies that require labels."""

import json
import pathlib
import shutil
import sys
import tempfile
import unittest

import yaml

from support import CHART, REQUIRED, VALUES, bindings_to, helm, of_kind, one, render

sys.path.insert(0, str(CHART.parent))
import readme  # noqa: E402

SHIPPED = yaml.safe_load((CHART / "values.yaml").read_text())
RULES = "rules: [{apiGroups: [''], resources: [pods], verbs: [delete]}]"


def roles(objects):
    return {obj["metadata"]["labels"]["daypass.dev/role-id"] for obj in of_kind(objects, "Namespace")}


def in_order(objects):
    return sorted(yaml.safe_dump(obj) for obj in objects)


def rendered(*args, files=(), values=""):
    """As render(), with more values files below `values`."""
    with tempfile.TemporaryDirectory() as folder:
        for i, text in enumerate(files):
            path = pathlib.Path(folder) / f"{i}.yaml"
            path.write_text(text)
            args = (*args, "--values", str(path))
        done = helm("template", "daypass", *args, "--namespace", "daypass", values=values)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [obj for obj in yaml.safe_load_all(done.stdout) if obj]


def umbrella(folder, values, alias=""):
    """An umbrella chart with this one in it."""
    (folder / "charts").mkdir()
    shutil.copytree(CHART, folder / "charts/daypass")
    dependency = {"name": "daypass", "version": ">=0", "condition": "daypass.enabled"}
    if alias:
        dependency |= {"alias": alias, "condition": f"{alias}.enabled"}
    chart = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [dependency]}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(chart))
    (folder / "values.yaml").write_text(yaml.safe_dump({alias or "daypass": yaml.safe_load(REQUIRED + values)}))
    return str(folder)


# The shipped roles that wait for namespaces.
OFF = {"logs-view", "pods-debug"}


class Removal(unittest.TestCase):
    """A role that is removed is not rendered, however the values come together."""

    def test_enabled_false_removes_each_shipped_role(self):
        for id in SHIPPED["roles"]:
            with self.subTest(id):
                objects = render(f"roles: {{{id}: {{enabled: false, namespaces: [shop]}}}}")
                self.assertNotIn(id, yaml.safe_dump_all(objects))

    def test_enabled_false_holds_under_other_values_files(self):
        off, on = "roles: {pods-restart: {enabled: false}}", "roles: {pods-restart: {enabled: true}}"
        for first, second, there in [
            (off, "roles: {pods-restart: {maxMembers: 3}}", False),
            (off, "roles: {nodes-view: null}", False),
            (on, off, False),
            (off, on, True),
        ]:
            with self.subTest(first=first, second=second):
                objects = rendered(str(CHART), files=[first], values=REQUIRED + second)
                self.assertEqual("pods-restart" in roles(objects), there)

    def test_null_removes(self):
        for first, second, left in [
            ("", "roles: {pods-restart: null, nodes-view: null}", {"projects-view", "storage-view"}),
            ("", "roles: null", set()),
            # Null arrives for a role that only a values file has.
            (f"roles: {{ops: {{{RULES}}}}}", "roles: {ops: null}", set(SHIPPED["roles"]) - OFF),
        ]:
            with self.subTest(second):
                self.assertEqual(roles(rendered(str(CHART), files=[first], values=REQUIRED + second)), left)

    def test_a_removed_key_does_not_widen_logs_view(self):
        null = "roles: {logs-view: {onlyInNamespaces: null}}"
        self.assertNotIn("logs-view", yaml.safe_dump_all(render(null)))
        self.assertNotIn("logs-view", yaml.safe_dump_all(render("", "--set", "roles.logs-view.onlyInNamespaces=null")))
        debug = "kubeconfig: {mode: both}\nroles: {pods-debug: {enabled: true, onlyInNamespaces: null}}"
        self.assertNotIn("pods-debug", yaml.safe_dump_all(render(debug)))
        objects = render("roles: {logs-view: {onlyInNamespaces: null, namespaces: [shop]}}")
        group = ["system:serviceaccounts:daypass-logs-view"]
        self.assertEqual(bindings_to(objects, "daypass-role-logs-view"), [("RoleBinding", "shop", group)])
        # Other roles, and an explicit false, hold everywhere.
        for role in ("logs-view: {onlyInNamespaces: false}", f"ops: {{onlyInNamespaces: null, {RULES}}}"):
            self.assertIn(role.split(":")[0], roles(render(f"roles: {{{role}}}")))

    def test_a_misspelt_removal_is_refused(self):
        done = helm("template", "daypass", str(CHART), values=REQUIRED + "roles: {pod-restart: {enabled: false}}")
        self.assertIn("roles.pod-restart has neither rules nor clusterRoles", done.stderr)

    def test_in_the_values_of_a_parent_chart(self):
        for values, overlay in [
            ("roles: {pods-restart: {enabled: false}}", ""),
            ("", "daypass: {roles: {pods-restart: {enabled: false}}}"),
            ("", "daypass: {roles: {pods-restart: null}}"),
        ]:
            with self.subTest(values=values, overlay=overlay), tempfile.TemporaryDirectory() as folder:
                objects = rendered(umbrella(pathlib.Path(folder), values), values=overlay)
                self.assertEqual(roles(objects), {"projects-view", "nodes-view", "storage-view"})


class MissingValues(unittest.TestCase):
    """Null deletes a default, and --reuse-values brings an earlier chart's values: keys may be missing."""

    KEPT = {key: SHIPPED[key] for key in readme.REMOVABLE}

    def same(self, values_yaml, values):
        """A chart with that values.yaml renders the same."""
        with tempfile.TemporaryDirectory() as folder:
            chart = pathlib.Path(folder) / "daypass"
            shutil.copytree(CHART, chart)
            (chart / "values.yaml").write_text(yaml.safe_dump(values_yaml))
            self.assertEqual(render(values, chart=chart, tests=True), render(values, tests=True))

    def test_defaults_are_those_of_values_yaml(self):
        written = (CHART / "files/defaults/values.yaml").read_text()
        self.assertEqual(written, "".join(readme.defaults((CHART / "values.yaml").read_text())))
        self.assertEqual({**yaml.safe_load(written), **self.KEPT}, SHIPPED)

    def test_every_key_missing(self):
        for name, values in VALUES.items():
            if name != "without":
                with self.subTest(name):
                    self.same(self.KEPT, values)

    def test_every_key_but_maps_missing(self):
        def maps(values):
            return {key: maps(value) for key, value in values.items() if isinstance(value, dict)}

        # These are taken as they are.
        whole = {key: SHIPPED[key] for key in ("podSecurityContext", "metrics")}
        for values in ("", VALUES["all"]):
            self.same({**maps(SHIPPED), **self.KEPT, **whole}, values)

    def test_null_for_every_key(self):
        """Helm drops some nulls; a schema that refused the others would refuse an upgrade."""

        def nulls(values):
            return {key: nulls(value) if isinstance(value, dict) and value else None for key, value in values.items()}

        without = {key: None for key in (*readme.REMOVABLE, "podSecurityContext")}
        without["podSecurityContext"] = dict.fromkeys(SHIPPED["podSecurityContext"])
        expected = in_order(render(yaml.safe_dump(without)))
        every = {**nulls(SHIPPED), "roles": None, "resources": None}
        for key, value in yaml.safe_load(REQUIRED).items():
            every[key].update(value)
        self.assertEqual(in_order(rendered(str(CHART), "--skip-tests", values=yaml.safe_dump(every))), expected)
        with tempfile.TemporaryDirectory() as folder:
            chart = umbrella(pathlib.Path(folder), "")
            objects = rendered(chart, "--skip-tests", values=yaml.safe_dump({"daypass": every}))
            self.assertEqual(in_order(objects), expected)

    def test_the_schema_admits_null(self):
        schema = json.loads((CHART / "values.schema.json").read_text())

        def walk(schema_of, path):
            for key, value in schema_of["properties"].items():
                if "$ref" in value:
                    value = schema["definitions"][value["$ref"].split("/")[-1]]
                self.assertRegex(str(value.get("type", value)), "null|None", f"{path}.{key}")
                if "properties" in value:
                    walk(value, f"{path}.{key}")

        walk(schema, "")
        (role,) = schema["properties"]["roles"]["patternProperties"].values()
        self.assertIn("null", role["type"])
        # Without namespaces the role holds everywhere: a null must not widen it.
        namespaces = role["properties"].pop("namespaces")
        self.assertEqual(namespaces["type"], "array")
        walk(role, "roles.*")

    def test_removed_values_stay_removed(self):
        without = render("roles: null\nresources: null\ntopologySpreadConstraints: null")
        self.assertEqual(of_kind(without, "Namespace", "ResourceQuota"), [])
        pod = one(without, "Deployment", "daypass", "daypass")["spec"]["template"]["spec"]
        self.assertNotIn("topologySpreadConstraints", pod)
        self.assertNotIn("resources", pod["containers"][0])


class Umbrella(unittest.TestCase):
    def objects(self, values="", overlay="", alias=""):
        with tempfile.TemporaryDirectory() as folder:
            return rendered(umbrella(pathlib.Path(folder), values, alias), values=overlay)

    def test_condition(self):
        self.assertEqual(self.objects("enabled: false"), [])
        self.assertEqual(self.objects("", "daypass: {enabled: false}"), [])
        objects = self.objects("enabled: true", "global: {storageClass: fast, number: 1}")
        self.assertEqual(in_order(objects), in_order(render(tests=True)))

    def test_alias(self):
        deployment = one(self.objects(alias="passes"), "Deployment", "daypass-passes", "daypass")
        self.assertEqual(deployment["metadata"]["labels"]["app.kubernetes.io/name"], "passes")

    def test_aliases_that_are_no_names_of_objects(self):
        for alias, name in [
            ("supportAccess", "daypass-supportaccess"),
            ("day_pass", "daypass-day-pass"),
            ("1pass", "daypass-1pass"),
            ("_Pass_", "daypass--pass"),
            ("A" * 70, "daypass-" + "a" * 55),
        ]:
            with self.subTest(alias):
                objects = self.objects(VALUES["all"], alias=alias)
                one(objects, "Deployment", name, "daypass")
                self.valid(objects)
        # A release name that begins with a digit, too.
        with tempfile.TemporaryDirectory() as folder:
            chart = umbrella(pathlib.Path(folder), VALUES["all"], "1_Pass")
            done = helm("template", "2024", chart, "--namespace", "daypass")
            objects = [obj for obj in yaml.safe_load_all(done.stdout) if obj]
            one(objects, "Deployment", "daypass-1-pass-2024", "daypass")
            self.valid(objects)

    def valid(self, objects):
        for obj in objects:
            metadata = obj["metadata"]
            if obj["kind"] not in ("ClusterRole", "ClusterRoleBinding", "RoleBinding"):
                self.assertRegex(metadata["name"], "^[a-z]([-.a-z0-9]{0,61}[a-z0-9])?$")
            for value in metadata["labels"].values():
                self.assertRegex(value, "^[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$")

    def test_enabled_false_without_a_condition_is_refused(self):
        done = helm("template", "daypass", str(CHART), values=REQUIRED + "enabled: false")
        self.assertIn("enabled: false has no effect here", done.stderr)


class Labels(unittest.TestCase):
    """For policies that require labels on everything."""

    VALUES = VALUES["all"] + "commonLabels: {team: platform, cost-center: '4711', app.kubernetes.io/name: other}\n"

    def test_common_labels_are_on_everything(self):
        objects = render(self.VALUES, tests=True)
        before = render(VALUES["all"], tests=True)
        for obj, bare in zip(objects, before, strict=True):
            every = [(obj["metadata"], bare["metadata"])]
            if obj["kind"] == "Deployment":
                every.append((obj["spec"]["template"]["metadata"], bare["spec"]["template"]["metadata"]))
            for metadata, old in every:
                # `podLabels` has a team too, and is the nearer one.
                added = {"team": old["labels"].get("team", "platform"), "cost-center": "4711"}
                self.assertEqual(metadata["labels"], {**old["labels"], **added}, obj["kind"])
                metadata["labels"] = old["labels"]
        # In no selector: a Deployment's cannot change.
        self.assertEqual(objects, before)

    def test_labels_of_role_namespaces(self):
        values = """
commonLabels: {team: platform, size: s}
roleNamespaceLabels: {team: support, pod-security.kubernetes.io/enforce: privileged}
"""
        for obj in render(values):
            labels = obj["metadata"]["labels"]
            self.assertEqual(labels["size"], "s")
            self.assertEqual(labels["team"], "support" if obj["kind"] == "Namespace" else "platform")
            if obj["kind"] == "Namespace":
                self.assertEqual(labels["pod-security.kubernetes.io/enforce"], "restricted")

    def test_the_nearer_label_wins_even_if_empty(self):
        values = """
commonLabels: {team: x}
roleNamespaceLabels: {team: ""}
podLabels: {team: ""}
metrics: {serviceMonitor: {enabled: true, labels: {team: ""}}}
"""
        for obj in render(values, tests=True):
            near = obj["kind"] in ("Namespace", "ServiceMonitor")
            self.assertEqual(obj["metadata"]["labels"]["team"], "" if near else "x", obj["kind"])
            if obj["kind"] == "Deployment":
                self.assertEqual(obj["spec"]["template"]["metadata"]["labels"]["team"], "")

    def test_no_labels_of_daypass(self):
        for key in ("commonLabels", "roleNamespaceLabels", "podLabels"):
            done = helm("template", "daypass", str(CHART), values=REQUIRED + f"{key}: {{daypass.dev/member: a}}")
            self.assertIn(f"{key}: daypass.dev/member is Daypass's own", done.stderr)


class Clusters(unittest.TestCase):
    """What a cluster stores or chooses itself."""

    def test_quotas_are_as_kubernetes_stores_them(self):
        for members, count, accounts, secrets in [
            (3, "3", "7", "60"),
            (100, "100", "201", "2k"),
            (1000, "1k", "2001", "20k"),
            (1250, "1250", "2501", "25k"),
            (10000, "10k", "20001", "200k"),
        ]:
            objects = render(f"maxMembersPerRole: {members}\nroles: {{nodes-view: {{maxMembers: {members}}}}}")
            for role in ("nodes-view", "storage-view"):
                hard = one(objects, "ResourceQuota", "daypass", f"daypass-{role}")["spec"]["hard"]
                expected = {
                    "pods": "0",
                    "count/members.daypass.dev": count,
                    "count/serviceaccounts": accounts,
                    "count/secrets": secrets,
                }
                self.assertEqual(hard, expected)

    def test_the_cluster_may_choose_users(self):
        for value, left in [
            ("podSecurityContext: {runAsUser: null, fsGroup: null}", {"runAsGroup": 65532}),
            ("podSecurityContext: {runAsUser: '', fsGroup: '', runAsGroup: ''}", {}),
            ("podSecurityContext: {runAsUser: 1000}", {"runAsUser": 1000, "runAsGroup": 65532, "fsGroup": 65532}),
        ]:
            with self.subTest(value):
                objects = render(value, tests=True)
                deployment = one(objects, "Deployment", "daypass", "daypass")["spec"]["template"]
                for pod in (deployment, *of_kind(objects, "Pod")):
                    restricted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
                    self.assertEqual(pod["spec"]["securityContext"], {**restricted, **left})
