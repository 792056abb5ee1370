"""The chart as a whole."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import yaml

from support import CHART, HERE, ISSUED, REQUIRED, TEMPLATES, VALUES, containers, helm, of_kind, render


def every(suite):
    """The tests of a suite of suites."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from every(test)
        else:
            yield test


class Chart(unittest.TestCase):
    def test_lint_is_clean(self):
        for name, values in VALUES.items():
            with self.subTest(name):
                done = helm("lint", "--strict", str(CHART), values=REQUIRED + values)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                # No notices of helm lint either.
                self.assertNotIn("[", done.stdout)

    def test_two_renders_are_the_same_bytes(self):
        for name, values in VALUES.items():
            with self.subTest(name):
                first, second = (helm("template", "daypass", str(CHART), values=REQUIRED + values) for _ in range(2))
                self.assertEqual(first.returncode, 0, first.stderr)
                self.assertEqual(first.stdout, second.stdout)

    def test_rendering_uses_no_cluster_randomness_or_time(self):
        """A GitOps controller renders again and again, without a cluster."""
        unstable = r"\b(lookup|rand\w+|gen(CA|PrivateKey|Signed\w*|SelfSigned\w*)|uuidv4|htpasswd|now|derivePassword|Release\.Is\w+|Release\.Revision|Capabilities)\b"
        for path in TEMPLATES:
            for call in re.findall(
                r"{{.*?}}", re.sub(r"{{-? */\*.*?\*/ *-?}}", "", path.read_text(), flags=re.S), re.S
            ):
                self.assertNotRegex(call, unstable, path.name)

    def test_no_null_and_no_empty_field(self):
        def walk(value, path):
            self.assertNotIn(value, (None, [], {}), path)
            for key, item in (
                value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            ):
                # An empty map selects everything.
                if str(key) not in ("namespaceSelector", "podSelector", "apiGroups", "data"):
                    walk(item, f"{path}.{key}")

        for name, values in VALUES.items():
            for obj in render(values, tests=True):
                if obj["kind"] != "CustomResourceDefinition":
                    walk(obj, f"{name}: {obj['kind']} {obj['metadata']['name']}")

    def test_a_scanner_finds_nothing(self):
        """checkov; checkov.yaml and annotations on the objects say what it skips, and why."""
        with tempfile.TemporaryDirectory() as folder:
            for name, values in VALUES.items():
                text = yaml.safe_dump_all(render(values + f"\nimage: {{digest: 'sha256:{'0' * 64}'}}", tests=True))
                (pathlib.Path(folder) / f"{name.replace(' ', '-')}.yaml").write_text(text)
            checkov = [sys.executable, pathlib.Path(sys.executable).with_name("checkov"), "--config-file"]
            done = subprocess.run(
                [*checkov, HERE / "checkov.yaml", "--directory", folder], capture_output=True, text=True, timeout=1800
            )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_template_has_a_test(self):
        """A class in this folder names it in `templates`."""
        cases = [type(test) for test in every(unittest.defaultTestLoader.discover(str(HERE), "*_test.py"))]
        tested = {name for case in cases for name in getattr(case, "templates", ())}
        rendering = {str(path.relative_to(CHART / "templates")) for path in TEMPLATES if path.suffix == ".yaml"}
        self.assertEqual(sorted(tested), sorted(rendering))

    def test_renders_no_own_namespace_no_certificates_and_only_test_hooks(self):
        for values in VALUES.values():
            objects = render(values)
            self.assertNotIn("daypass", [obj["metadata"]["name"] for obj in of_kind(objects, "Namespace")])
            self.assertEqual(of_kind(objects, "Secret", "Pod", "Job"), [])
            for obj in render(values, tests=True):
                self.assertEqual(obj["metadata"].get("annotations", {}).get("helm.sh/hook", "test"), "test")

    def test_every_value_is_described_in_the_schema(self):
        def walk(values, schema, path):
            self.assertIn("properties", schema, path)
            self.assertIs(schema["additionalProperties"], False, path)
            # Helm's own, in an umbrella chart.
            helms = set() if path else {"enabled", "global"}
            self.assertEqual(sorted(values), sorted(set(schema["properties"]) - helms), path)
            for key, value in values.items():
                if isinstance(value, dict) and "properties" in schema["properties"][key]:
                    walk(value, schema["properties"][key], f"{path}.{key}")

        walk(
            yaml.safe_load((CHART / "values.yaml").read_text()),
            json.loads((CHART / "values.schema.json").read_text()),
            "",
        )

    def test_artifact_hub_annotations_match_the_chart(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        hub = {
            key.removeprefix("artifacthub.io/"): yaml.safe_load(value) for key, value in chart["annotations"].items()
        }
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


class Crds(unittest.TestCase):
    templates = ["crds.yaml"]

    def sources(self):
        crds = [yaml.safe_load(path.read_text()) for path in sorted((CHART / "files").glob("*.yaml"))]
        self.assertTrue(crds)
        return crds

    def test_crds_render_as_generated(self):
        rendered = of_kind(render(), "CustomResourceDefinition")
        self.assertEqual([crd["spec"] for crd in rendered], [crd["spec"] for crd in self.sources()])

    def test_crds_can_be_kept_and_disabled(self):
        for crd in of_kind(render(), "CustomResourceDefinition"):
            self.assertEqual(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep")
        for crd in of_kind(render("crds: {keep: false}"), "CustomResourceDefinition"):
            self.assertNotIn("helm.sh/resource-policy", crd["metadata"].get("annotations", {}))
        self.assertEqual(of_kind(render("crds: {enabled: false}"), "CustomResourceDefinition"), [])


class Notes(unittest.TestCase):
    """NOTES.txt. `helm template` does not render it and a dry run needs a cluster, so a copy of the chart makes it an
    object."""

    def notes(self, values, required=REQUIRED):
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "daypass"
            shutil.copytree(CHART, copy)
            (copy / "templates/NOTES.txt").rename(copy / "templates/_notes.tpl")
            text = (copy / "templates/_notes.tpl").read_text()
            (copy / "templates/_notes.tpl").write_text('{{ define "notes" }}' + text + "{{ end }}")
            (copy / "templates/notes.yaml").write_text('kind: Notes\ntext: {{ include "notes" . | toJson }}\n')
            done = helm(
                "template",
                "daypass",
                str(copy),
                "-n",
                "daypass",
                "-s",
                "templates/notes.yaml",
                values=required + values,
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            return yaml.safe_load(done.stdout)["text"]

    def test_notes_show_the_next_three_commands(self):
        for values, ca in [
            ("managers: [{kind: ServiceAccount, namespace: default, name: owner}]", "get secret daypass-tls"),
            ("managers: [{kind: ServiceAccount, namespace: default, name: owner}]\n" + ISSUED, None),
            ("tls: {secretName: mine, caKey: ca.crt}", "get secret mine"),
            ("tls: {atProxy: {enabled: true}}", None),
            ("tls: {atProxy: {enabled: true, caConfigMap: edge-ca}}", "get configmap edge-ca"),
        ]:
            notes = self.notes(values)
            self.assertEqual(re.findall(r"^(\d)\. ", notes, re.M), ["1", "2", "3"])
            self.assertIn("https://daypass.example.com/processing/data-planes/eu-1/members", notes)
            self.assertEqual("--cacert daypass-ca.crt" in notes, ca is not None)
            if ca:
                self.assertIn(ca, notes)

    def test_notes_say_which_token(self):
        person, account = "{kind: User, name: 'corp:ada'}", "{kind: ServiceAccount, namespace: default, name: owner}"
        create, id_token, nobody = "kubectl create token", "# an ID token of corp", "Nobody may manage members yet"
        for managers, methods, expected in [
            (account, "[kubernetes]", create),
            (person, "[kubernetes]", "# A Kubernetes token of audience daypass for the User corp:ada"),
            (account, "[access-token]", "# an access token"),
            (account, "[kubernetes, oidc]", create),
            (person, "[kubernetes, oidc]", id_token),
            (account, "[oidc]", id_token),
            ("", "[kubernetes]", nobody),
            ("", "[kubernetes, oidc]", nobody),
        ]:
            values = yaml.safe_load(REQUIRED + VALUES["all"])
            values["managers"] = yaml.safe_load(f"[{managers}]")
            values["server"]["authMethods"] = yaml.safe_load(methods)
            if "oidc" not in methods:
                del values["oidc"]
            with self.subTest(managers=managers, methods=methods):
                self.assertIn(expected, self.notes("", yaml.safe_dump(values)))

    def test_notes_warn_about_a_role_that_reads_the_audit_trail(self):
        warning = "WARNING: the role a reads logs in every namespace"
        for resources, verbs, warned in [
            ("[pods, pods/log]", "[get]", True),
            ("['*']", "['*']", True),
            ("[pods]", "[get]", False),
            ("[pods/log]", "[delete]", False),
        ]:
            rules = f"roles: {{a: {{rules: [{{apiGroups: [''], resources: {resources}, verbs: {verbs}}}]}}}}"
            self.assertEqual(warning in self.notes(rules), warned, rules)
            self.assertNotIn(warning, self.notes(rules.replace("rules:", "namespaces: [blue], rules:")))
        self.assertNotIn("WARNING", self.notes(""))

    def test_notes_say_what_is_missing(self):
        notes = self.notes(VALUES["without"])
        self.assertIn("It has no role", notes)
        self.assertIn("WARNING: walls.enabled is false", notes)
