"""Sign-in of people: the issuers, as Daypass gets them."""

import json
import unittest

import yaml

from support import CHART, REQUIRED, helm, of_kind, one, render

ISSUER = {
    "name": "corp",
    "url": "https://id.example.com/realms/corp",
    "audiences": ["daypass"],
    "usernameClaim": "email",
    "usernamePrefix": "corp:",
    "groupsClaim": "groups",
    "groupsPrefix": "corp:",
}
OTHER = {**ISSUER, "name": "two", "url": "https://two.example.com", "usernamePrefix": "two:", "groupsPrefix": "two:"}
METHODS = ["kubernetes", "access-token", "oidc"]


def values(*issuers, methods=METHODS, **more):
    """Values with these issuers."""
    all = yaml.safe_load(REQUIRED)
    all["server"]["authMethods"] = methods
    return {**all, "oidc": {"issuers": list(issuers)}, **more}


def without(issuer, field):
    return {key: value for key, value in issuer.items() if key != field}


class Issuers(unittest.TestCase):
    templates = ["oidc.yaml"]

    def deployment(self, objects):
        return one(objects, "Deployment", "daypass", "daypass")["spec"]["template"]

    def issuers(self, objects):
        return yaml.safe_load(one(objects, "ConfigMap", "daypass-oidc", "daypass")["data"]["issuers.yaml"])

    def test_without_the_method_nothing_is_rendered(self):
        objects = render("oidc: {issuers: []}")
        self.assertEqual(of_kind(objects, "ConfigMap"), [])
        self.assertNotIn("oidc", yaml.safe_dump(self.deployment(objects)))

    def test_daypass_gets_the_issuers(self):
        more = {
            "discoveryURL": "https://id.example.com/.well-known/openid-configuration?tenant=1",
            "authorizedParties": ["cli"],
            "uidClaim": "oid",
            # A name that is a key of the values elsewhere.
            "requiredClaims": {"hd": "example.com", "labels": "on"},
            "emailVerified": "ifPresent",
            "maxTokenAge": "30m",
            "unprefixed": True,
        }
        objects = render(values({**ISSUER, **more}))
        self.assertEqual(self.issuers(objects), [{**ISSUER, **more}])
        pod = self.deployment(objects)["spec"]
        (container,) = pod["containers"]
        self.assertIn("--auth-methods=kubernetes,access-token,oidc", container["args"])
        self.assertIn("--oidc-issuers-file=/etc/daypass/oidc/issuers.yaml", container["args"])
        mount = {"name": "oidc", "mountPath": "/etc/daypass/oidc", "readOnly": True}
        self.assertIn(mount, container["volumeMounts"])
        self.assertIn({"name": "oidc", "configMap": {"name": "daypass-oidc"}}, pod["volumes"])
        self.assertNotIn("oidc-ca", yaml.safe_dump(pod))

    def test_each_ca_is_a_file(self):
        third = {**OTHER, "name": "three", "url": "https://a", "usernamePrefix": "3:", "groupsPrefix": "3:"}
        objects = render(values({**ISSUER, "caConfigMap": "ca"}, OTHER, {**third, "caConfigMap": "other.ca"}))
        files = [issuer.get("caFile") for issuer in self.issuers(objects)]
        expected = ["/etc/daypass/oidc-ca/corp/ca.crt", None, "/etc/daypass/oidc-ca/three/ca.crt"]
        self.assertEqual(files, expected)
        self.assertNotIn("caConfigMap", yaml.safe_dump(self.issuers(objects)))
        pod = self.deployment(objects)["spec"]
        (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "oidc-ca"]
        sources = [source["configMap"] for source in volume["projected"]["sources"]]
        self.assertEqual(
            sources,
            [
                {"name": name, "items": [{"key": "ca.crt", "path": path}]}
                for name, path in [("ca", "corp/ca.crt"), ("other.ca", "three/ca.crt")]
            ],
        )
        mount = {"name": "oidc-ca", "mountPath": "/etc/daypass/oidc-ca", "readOnly": True}
        self.assertIn(mount, pod["containers"][0]["volumeMounts"])

    def test_each_client_secret_is_a_file(self):
        def console(**more):
            return {"clientId": "daypass", "scopes": ["email"], **more}

        third = {**OTHER, "name": "three", "url": "https://a", "usernamePrefix": "3:", "groupsPrefix": "3:"}
        objects = render(
            values(
                {**ISSUER, "console": console(clientSecret={"name": "client", "key": "my.key"})},
                {**OTHER, "console": console()},
                {**third, "console": console(clientSecret={"name": "other", "key": "secret"})},
            )
        )
        self.assertEqual(
            [issuer["console"] for issuer in self.issuers(objects)],
            [
                console(clientSecretFile="/etc/daypass/oidc-client/corp/secret"),
                console(),
                console(clientSecretFile="/etc/daypass/oidc-client/three/secret"),
            ],
        )
        pod = self.deployment(objects)["spec"]
        (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "oidc-client"]
        self.assertEqual(
            volume["projected"],
            {
                "defaultMode": 0o440,
                "sources": [
                    {"secret": {"name": name, "items": [{"key": key, "path": path}]}}
                    for name, key, path in [
                        ("client", "my.key", "corp/secret"),
                        ("other", "secret", "three/secret"),
                    ]
                ],
            },
        )
        mount = {"name": "oidc-client", "mountPath": "/etc/daypass/oidc-client", "readOnly": True}
        self.assertIn(mount, pod["containers"][0]["volumeMounts"])
        public = self.deployment(render(values({**ISSUER, "console": console()})))
        self.assertNotIn("oidc-client", yaml.safe_dump(public))

    def test_a_change_restarts_the_pods(self):
        def checksum(*issuers):
            annotations = self.deployment(render(values(*issuers, podAnnotations={"a": "b"})))["metadata"]
            self.assertEqual(annotations["annotations"].pop("a"), "b")
            return annotations["annotations"]["checksum/oidc"]

        sums = [checksum(*issuers) for issuers in ([ISSUER], [ISSUER, OTHER], [{**ISSUER, "usernameClaim": "sub"}])]
        self.assertEqual(len(set(sums)), 3)
        self.assertEqual(checksum(ISSUER), sums[0])
        bare = self.deployment(render(values(ISSUER)))["metadata"]["annotations"]
        self.assertEqual(bare, {"checksum/oidc": sums[0]})
        self.assertNotIn("annotations", self.deployment(render())["metadata"])

    def test_no_other_rights(self):
        def rights(objects):
            return of_kind(objects, "ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding")

        self.assertEqual(rights(render(values(ISSUER))), rights(render()))


class Refused(unittest.TestCase):
    """What Daypass would refuse at its start, or what would weaken it."""

    templates = []

    def refused(self, message, *issuers, methods=METHODS):
        done = helm("template", "daypass", str(CHART), values=json.dumps(values(*issuers, methods=methods)))
        self.assertNotEqual(done.returncode, 0, f"accepted: {issuers}")
        self.assertIn(message, done.stderr)

    def test_method_and_issuers_need_each_other(self):
        self.refused("oidc.issuers is required with oidc in server.authMethods")
        self.refused("oidc.issuers has no effect without oidc in server.authMethods", ISSUER, methods=["kubernetes"])

    def test_by_the_schema(self):
        for field in ("name", "url", "audiences", "usernameClaim", "usernamePrefix"):
            self.refused(f"missing property '{field}'", without(ISSUER, field))
        self.refused("'groupsPrefix' required, if 'groupsClaim' exists", without(ISSUER, "groupsPrefix"))
        for field, value in [
            ("name", ""),
            ("name", "Corp"),
            ("name", "a" * 64),
            ("name", "a/b"),
            ("url", "http://id.example.com"),
            ("url", "https://id.example.com?a"),
            ("url", "https://user@id.example.com"),
            ("discoveryURL", "http://id.example.com"),
            ("audiences", []),
            ("audiences", "daypass"),
            ("caConfigMap", "a/b"),
            ("caConfigMap", ""),
            ("usernameClaim", ""),
            ("groupsClaim", ""),
            ("requiredClaims", ["hd"]),
            ("emailVerified", "never"),
            ("maxTokenAge", "0m"),
            ("maxTokenAge", "49h"),
            ("maxTokenAge", 3600),
            ("unprefixed", "yes"),
        ]:
            with self.subTest(field=field, value=value):
                self.refused(f"at '/oidc/issuers/0/{field}", {**ISSUER, field: value})
        self.refused("at '/oidc/issuers/0/audiences/0'", {**ISSUER, "audiences": [""]})
        self.refused("at '/oidc/issuers/0/requiredClaims/a': got boolean", {**ISSUER, "requiredClaims": {"a": True}})
        self.refused("additional properties 'usernamClaim' not allowed", {**ISSUER, "usernamClaim": "sub"})
        self.refused("missing property 'clientId'", {**ISSUER, "console": {}})
        for field, value in [
            # Never the secret itself.
            ("clientSecret", "s3cret"),
            ("clientSecret", {"name": "a"}),
            ("clientSecret", {"key": "a"}),
            ("clientSecret", {"name": "a", "key": "b", "value": "s3cret"}),
            ("clientSecret", {"name": "A", "key": "b"}),
            ("clientSecret", {"name": "a", "key": "../b"}),
            ("clientSecretFile", "/etc/passwd"),
            ("scopes", "email"),
            ("scopes", ["a b"]),
            ("scopes", [""]),
            ("scopes", ["offline_access"]),
            ("redirectUri", "https://evil.example"),
        ]:
            with self.subTest(field=field, value=value):
                console = {"clientId": "daypass", field: value}
                self.refused("at '/oidc/issuers/0/console", {**ISSUER, "console": console})

    def test_client_is_an_audience(self):
        message = "oidc.issuers[1].console.clientId must be one of oidc.issuers[1].audiences"
        self.refused(message, ISSUER, {**OTHER, "console": {"clientId": "cli"}})

    def test_expressions(self):
        for field, value in [
            ("usernameExpression", "claims.sub"),
            ("expression", "claims.sub"),
            ("claimMappings", {"username": {"expression": "claims.sub"}}),
            ("claimValidationRules", [{"expression": "claims.hd == 'example.com'"}]),
            ("userValidationRules", []),
        ]:
            message = f"oidc.issuers[1].{field}: expressions (CEL) are not supported"
            with self.subTest(field):
                self.refused(message, ISSUER, {**OTHER, field: value})

    def test_prefixes(self):
        empty = "is empty: this needs unprefixed: true, and no other issuer"
        self.refused(f"oidc.issuers[0].usernamePrefix {empty}", {**ISSUER, "usernamePrefix": ""})
        self.refused(f"oidc.issuers[0].groupsPrefix {empty}", {**ISSUER, "groupsPrefix": ""})
        alone = {**ISSUER, "usernamePrefix": "", "unprefixed": True}
        self.refused(f"oidc.issuers[1].usernamePrefix {empty}", OTHER, alone)
        for field in ("usernamePrefix", "groupsPrefix"):
            self.refused(
                f"oidc.issuers[0].{field} begins with system:, which is Kubernetes' own", {**ISSUER, field: "system:a"}
            )
            for prefix in ("corp:", "corp:a:", "co"):
                message = f'{field}: one of "{prefix}" and "corp:", of oidc.issuers[0], begins with the other'
                self.refused(f"oidc.issuers[1].{message}", ISSUER, {**OTHER, field: prefix})

    def test_the_same_issuer_twice(self):
        for field in ("name", "url"):
            self.refused(
                f"oidc.issuers[1].{field}: oidc.issuers[0] has the same", ISSUER, {**OTHER, field: ISSUER[field]}
            )

    def test_accepted(self):
        no_groups = without(without(OTHER, "groupsClaim"), "groupsPrefix")
        for issuers in [
            [ISSUER, OTHER],
            [ISSUER, no_groups],
            [no_groups, ISSUER],
            [{**ISSUER, "usernamePrefix": "", "groupsPrefix": "", "unprefixed": True}],
            [{**ISSUER, "console": {"clientId": "daypass", "scopes": ["a:b/c", "https://a.b/c", "openid"]}}],
        ]:
            render(values(*issuers))
