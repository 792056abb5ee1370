"""Every text of the values arrives as the same text, also where YAML would read another value."""

import json
import re
import unittest

import yaml

from support import CHART, REQUIRED, VALUES, helm, render

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEXTS = ["12345", "on", "no", "1e3", "0x1F", "0x1f", "010", "1:20", "2024-01-15", "~", "null", "a: b # c", "- a", "*a"]
TEXTS += ["{a}", "%a", "'", '"', "it's \"quoted\": yes", "{{ a }}", " a "]
# They name a role of `roles` (test_role_ids), and one of an issuer's audiences.
REFERENCES = {"test.role", "managers.roles", "oidc.issuers.console.clientId"}


def admits(schema, value):
    if not isinstance(value, str):
        return {bool: "boolean", int: "integer"}[type(value)] in schema["type"]
    length = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
    return length and re.search(schema.get("pattern", ""), value) is not None


def fill(schema, text, path=""):
    """Values with everything enabled and text(path, schema) in place of every text; None leaves one out."""
    if "$ref" in schema:
        return fill(SCHEMA["definitions"][schema["$ref"].split("/")[-1]], text, path)
    if "enum" in schema:
        return "ServiceAccount" if "ServiceAccount" in schema["enum"] else schema["enum"][0]
    types = schema.get("type", [])
    if "string" in types:
        return text(path, schema)
    if "boolean" in types:
        return True
    if "array" in types:
        item = fill(schema["items"], text, path)
        return [item] if item else None
    if "properties" in schema:
        children = {key: fill(child, text, f"{path}.{key}".strip(".")) for key, child in schema["properties"].items()}
        return {key: child for key, child in children.items() if child is not None}
    if "patternProperties" in schema:
        return {"ops": fill(*schema["patternProperties"].values(), text, path)}
    if isinstance(schema.get("additionalProperties"), dict):
        value = fill(schema["additionalProperties"], text, path)
        return {"key": value} if value is not None else None
    return None


def rendered(values, **release):
    """The objects of these values and the required ones. Texts that are JSON lists are lists."""
    required = yaml.safe_load(REQUIRED)
    values = {**required, **values, **{key: {**required[key], **values.get(key, {})} for key in required}}
    objects = render(values, tests=True, **release)
    for obj in objects:
        # Another text has another checksum.
        if obj["kind"] == "Deployment":
            obj["spec"]["template"]["metadata"].get("annotations", {}).pop("checksum/oidc", None)
    return [mapped(obj, str) for obj in objects]


def mapped(value, change):
    """The value with change(text) for each text in it. A text that is a JSON list is compared as one."""
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [mapped(item, change) for item in value]
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value) if value.startswith("[") else value
    except ValueError:
        found = value
    if value.startswith("- audiences:"):
        # The issuers, in a ConfigMap.
        found = yaml.safe_load(value)
    return [mapped(item, change) for item in found] if isinstance(found, list) else change(value)


def in_order(objects):
    return sorted(json.dumps(obj, sort_keys=True) for obj in objects)


class Texts(unittest.TestCase):
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        cls.leaves = {}

        def name(path, schema):
            # Nothing else contains `zq`.
            unique = f"zq{len(cls.leaves)}z"
            if path in REFERENCES or not admits(schema, unique):
                return None
            cls.leaves[unique] = schema
            return unique

        cls.named = fill(SCHEMA, name)
        # An issuer needs its method, and a URL, which no text of this test is.
        cls.named["server"]["authMethods"] = ["kubernetes", "oidc"]
        issuer = cls.named["oidc"]["issuers"][0]
        issuer["url"] = "https://id.example.com"
        issuer["console"]["clientId"] = issuer["audiences"][0]
        cls.objects = rendered(cls.named)

    def arrives(self, value, text):
        """How many values can be this value; all of them arrive as the text."""
        given = {name for name, schema in self.leaves.items() if admits(schema, value)}
        pattern = re.compile("zq[0-9]+z")

        def change(found):
            return pattern.sub(lambda match: text if match[0] in given else match[0], found)

        values = mapped(self.named, lambda found: value if found in given else found)
        expected = [mapped(obj, change) for obj in self.objects]
        self.assertEqual(in_order(rendered(values)), in_order(expected))
        return len(given)

    def test_every_text_is_rendered(self):
        self.assertGreater(len(self.leaves), 45)
        text = yaml.safe_dump_all(self.objects)
        self.assertEqual([name for name in self.leaves if name not in text], [])

    def test_texts_that_yaml_reads_as_something_else(self):
        for text in TEXTS:
            with self.subTest(text):
                self.assertGreater(self.arrives(text, text), 10)

    def test_booleans_without_quotes(self):
        self.assertGreaterEqual(self.arrives(True, "true"), 8)

    def test_numbers_are_refused(self):
        """YAML has read another number than is written: 0012345 is 5349."""
        for number in (5349, 1.0):
            values = mapped(self.named, lambda text: number if text in self.leaves else text)
            done = helm("template", "daypass", str(CHART), values=json.dumps(values))
            self.assertNotEqual(done.returncode, 0)
            # One more: the client of the console is also an audience.
            numbers = len(re.findall("got number, want .*string", done.stderr))
            self.assertEqual(numbers, len(self.leaves) + 1, done.stderr)

    def test_namespaces(self):
        expected = rendered(self.named, namespace="zq")
        for namespace in ("12345", "on", "no", "1e3", "0x1f", "null"):
            with self.subTest(namespace):
                named = [mapped(obj, lambda text: re.sub(r"zq\b", namespace, text)) for obj in expected]
                self.assertEqual(in_order(rendered(self.named, namespace=namespace)), in_order(named))

    def test_role_ids(self):
        role = {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}], "clusterRoles": ["view"]}
        role["maxMembers"] = 7
        for id in ("12345", "on", "no", "1e3", "0x1f", "null", "labels", "resources", "global"):
            with self.subTest(id):
                manager = {"kind": "User", "name": "anna", "roles": [id]}
                objects = rendered({"roles": {id: role}, "managers": [manager], "test": {"role": id}})
                (namespace,) = [
                    obj for obj in objects if obj["metadata"].get("labels", {}).get("daypass.dev/role-id") == id
                ]
                self.assertEqual(namespace["metadata"]["name"], f"daypass-{id}")
                self.assertEqual(namespace["metadata"]["annotations"]["daypass.dev/name"], id)
                self.assertIn(f"--role={id}", yaml.safe_dump_all(objects))

    def test_large_numbers(self):
        """Templates print a number of YAML from 1e21 on, and Helm's from 1e6, in another form."""
        values = {"server": {"maxRefusedCredentials": 2000000, "maxDeniedRequests": 30000000}, "replicas": 1000000}
        (deployment,) = [obj for obj in rendered(values) if obj["kind"] == "Deployment"]
        args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        self.assertIn("--max-refused-credentials=2000000", args)
        self.assertIn("--max-denied-requests=30000000", args)
        self.assertEqual(deployment["spec"]["replicas"], 1000000)


class Names(unittest.TestCase):
    """Of releases and so of objects."""

    RELEASES = ["daypass", "20240115", "on", "1e3", "0x1f", "null", "team.blue", "a" * 48, "a" * 53, "1" * 53]
    RELEASES += ["a" * 48 + "----b", "a" * 45 + "-daypass", "daypass-" + "a" * 45]

    def test_names_of_objects_are_valid_and_unique(self):
        for release in self.RELEASES:
            with self.subTest(release):
                objects = render(VALUES["all"], release=release, tests=True)
                ids = [(obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]) for obj in objects]
                self.assertEqual(len(ids), len(set(ids)))
                self.assertLessEqual({"ServiceMonitor", "ConfigMap", "Certificate", "Pod"}, {id[0] for id in ids})
                for kind, namespace, name in ids:
                    self.assertIsInstance(name, str)
                    if kind == "Service":
                        self.assertRegex(name, "^[a-z]([-a-z0-9]*[a-z0-9])?$")
                    if kind not in ("ClusterRole", "ClusterRoleBinding", "RoleBinding"):
                        self.assertRegex(name, "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
                    self.assertLessEqual(len(name), 63)
                for obj in objects:
                    for value in obj["metadata"].get("labels", {}).values():
                        self.assertRegex(value, "^[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$")
                (certificate,) = [obj["spec"] for obj in objects if obj["kind"] == "Certificate"]
                self.assertLessEqual(len(certificate["secretName"]), 63)

    def test_references_follow_a_shortened_name(self):
        objects = render(VALUES["all"], release="a" * 53)
        (service,) = [obj for obj in objects if obj["kind"] == "Service" and obj["spec"].get("clusterIP") == "None"]
        self.assertIn(service["metadata"]["name"] + '"}', yaml.safe_dump([o for o in objects if "Rule" in o["kind"]]))
        levels = {obj["metadata"]["name"] for obj in objects if obj["kind"] == "PriorityLevelConfiguration"}
        schemas = [obj["spec"] for obj in objects if obj["kind"] == "FlowSchema"]
        self.assertEqual({schema["priorityLevelConfiguration"]["name"] for schema in schemas}, levels)
