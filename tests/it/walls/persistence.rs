//! The policies daypass-member-persistence and daypass-member-reach: what no member can do, whatever its role.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use crate::support::{NewMember, WallTest, attack, eventually, legit};

/// Members of a role that may do everything and of a role that restarts pods.
const WILD: &str = "system:serviceaccount:$ROLE:w1";
const RESTARTER: &str = "system:serviceaccount:daypass-pods-restart:r1";

fn wild(plain: &str) -> WallTest<'static> {
    let (mut test, _) = WallTest::shared();
    let everything = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    let role = test.cluster().role(everything);
    test.plain(plain).set("ROLE", &role.namespace);
    test.wait_can(WILD, "create secrets");
    test
}

#[test]
fn member_cannot_create_tokens() {
    const TOKENS: (&str, &str) =
        ("daypass-member-persistence", "a member may not create or change serviceaccounts/token");
    const SECRETS: (&str, &str) =
        ("daypass-member-persistence", "a member may not create or change service-account-token");
    const TOKEN: &str =
        "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: token,
        namespace: $PLAIN, annotations: {kubernetes.io/service-account.name: default}}}";
    const BOOTSTRAP: &str = "{apiVersion: v1, kind: Secret, type: bootstrap.kubernetes.io/token, metadata:
        {name: bootstrap-token-abcdef, namespace: kube-system}, stringData: {token-id: abcdef,
        token-secret: 0123456789abcdef, usage-bootstrap-authentication: 'true'}}";
    const OTHER: &str =
        "{apiVersion: v1, kind: Secret, metadata: {name: other, namespace: $PLAIN}, stringData: {a: b}}";
    let test = wild("walls-wild-tokens");
    test.cluster().apply(&test.fill(TOKEN).replace("name: token", "name: theirs"));
    test.check_all(&[
        attack("by request", WILD, "create token default -n $PLAIN", "", TOKENS),
        attack("by a Secret", WILD, "create -f -", TOKEN, SECRETS),
        attack("by a Secret that a new node logs on with", WILD, "create -f -", BOOTSTRAP, SECRETS),
        legit("… by the administrator", "", "create -f -", BOOTSTRAP),
        attack("by a Secret that is there", WILD, "annotate secret theirs -n $PLAIN a=1", "", SECRETS),
        legit("somebody else by request", "eve", "create token default -n $PLAIN", ""),
        legit("another Secret", WILD, "create -f -", OTHER),
    ]);
}

#[test]
fn member_cannot_request_certificates() {
    const ASKS: (&str, &str) =
        ("daypass-member-persistence", "a member may not create or change certificatesigningrequests,");
    const APPROVES: (&str, &str) =
        ("daypass-member-persistence", "a member may not create or change certificatesigningrequests/approval,");
    const DELETES: (&str, &str) =
        ("daypass-member-persistence", "a member may not delete certificatesigningrequests,");
    let mut test = wild("walls-wild-certificates");
    let request = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "forever");
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": {"signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
                     "request": STANDARD.encode(pem)},
        })
        .to_string()
    };
    test.cluster().apply(&request("walls-theirs"));
    test.set("REQUEST", &request("walls-new")).check_all(&[
        attack("for itself", WILD, "create -f -", "$REQUEST", ASKS),
        attack("approves somebody's", WILD, "certificate approve walls-theirs", "", APPROVES),
        attack("deletes somebody's", WILD, "delete csr walls-theirs", "", DELETES),
        legit("somebody else", "", "create -f -", "$REQUEST"),
    ]);
    test.cluster().kubectl(&["certificate", "approve", "walls-theirs"]);
}

#[test]
fn member_cannot_write_rbac() {
    const ROLES: (&str, &str) = ("daypass-member-persistence", "a member may not create or change roles,");
    const BINDINGS: (&str, &str) = ("daypass-member-persistence", "a member may not create or change rolebindings,");
    const CLUSTER_ROLES: (&str, &str) =
        ("daypass-member-persistence", "a member may not create or change clusterroles,");
    const CLUSTER_BINDINGS: (&str, &str) =
        ("daypass-member-persistence", "a member may not create or change clusterrolebindings,");
    const NO_BINDING: (&str, &str) = ("daypass-member-persistence", "a member may not delete rolebindings,");
    let test = wild("walls-wild-rbac");
    test.cluster().kubectl(&[
        "create",
        "rolebinding",
        "theirs",
        "--clusterrole=view",
        "--user=x",
        "-n",
        &test.fill("$PLAIN"),
    ]);
    test.check_all(&[
        attack("a Role", WILD, "create role r --verb=get --resource=pods -n $PLAIN", "", ROLES),
        attack("a RoleBinding", WILD, "create rolebinding r --clusterrole=view --user=x -n $PLAIN", "", BINDINGS),
        attack("a RoleBinding that is there", WILD, "annotate rolebinding theirs a=1 -n $PLAIN", "", BINDINGS),
        attack("a ClusterRole", WILD, "create clusterrole r --verb=get --resource=pods", "", CLUSTER_ROLES),
        attack("its own ClusterRole", WILD, "annotate clusterrole daypass-role-nodes-view a=1", "", CLUSTER_ROLES),
        attack(
            "a ClusterRoleBinding",
            WILD,
            "create clusterrolebinding r --clusterrole=view --user=x",
            "",
            CLUSTER_BINDINGS,
        ),
        attack("a RoleBinding's end", WILD, "delete rolebinding theirs -n $PLAIN", "", NO_BINDING),
        legit("somebody else", "rosa", "create clusterrolebinding r --clusterrole=view --user=x", ""),
        legit("somebody else, a RoleBinding's end", "rosa", "delete rolebinding theirs -n $PLAIN", ""),
        legit("a question about rights", WILD, "auth can-i create roles -n $PLAIN", ""),
        legit("a question about itself", WILD, "auth whoami", ""),
    ]);
}

#[test]
fn member_cannot_install_webhooks_or_api_services() {
    const MUTATING: (&str, &str) =
        ("daypass-member-persistence", "a member may not create or change mutatingwebhookconfigurations");
    const VALIDATING: (&str, &str) =
        ("daypass-member-persistence", "a member may not create or change validatingwebhookconfigurations");
    const NO_SERVICE: (&str, &str) = ("daypass-member-persistence", "a member may not delete apiservices,");
    const CONVERTED: (&str, &str) = (
        "daypass-member-persistence",
        "a member may not create or change customresourcedefinitions with a conversion webhook",
    );
    let crd = |strategy: &str| {
        let webhook = json!({"clientConfig": {"url": "https://127.0.0.1:1/x"}, "conversionReviewVersions": ["v1"]});
        let name = if strategy == "None" { "thing" } else { "other" };
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{name}s.types.example.com")},
            "spec": {
                "group": "types.example.com", "scope": "Namespaced",
                "names": {"kind": format!("Walls{name}"), "plural": format!("{name}s")},
                "versions": [{
                    "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}},
                }],
                "conversion": {"strategy": strategy, "webhook": (strategy == "Webhook").then_some(webhook)},
            },
        })
        .to_string()
    };
    const SERVICES: (&str, &str) = ("daypass-member-persistence", "a member may not create or change apiservices");
    let mut test = wild("walls-wild-webhooks");
    let webhook = |kind: &str| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "walls"},
            "webhooks": [{
                "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "failurePolicy": "Ignore",
                "clientConfig": {"url": "https://127.0.0.1:1/x"},
                "rules": [{
                    "apiGroups": ["x.example.com"], "apiVersions": ["v1"],
                    "operations": ["CREATE"], "resources": ["x"],
                }],
            }],
        })
        .to_string()
    };
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.walls.example.com"},
        "spec": {"group": "walls.example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
                 "service": {"name": "x", "namespace": "default"}, "insecureSkipTLSVerify": true},
    });
    test.set("MUTATING", &webhook("MutatingWebhookConfiguration"));
    test.set("VALIDATING", &webhook("ValidatingWebhookConfiguration")).set("SERVICE", &service.to_string());
    test.set("CONVERTED", &crd("Webhook"));
    test.cluster().apply(&crd("None"));
    const HOOK: &str = concat!(
        r#"patch crd things.types.example.com --type=merge -p {"spec":{"conversion":{"strategy":"Webhook","#,
        r#""webhook":{"clientConfig":{"url":"https://127.0.0.1:1/x"},"conversionReviewVersions":["v1"]}}}}"#
    );
    test.check_all(&[
        attack("an API server's end", WILD, "delete apiservice v1.apps", "", NO_SERVICE),
        attack("a type that it converts", WILD, "create -f -", "$CONVERTED", CONVERTED),
        attack("another type with a conversion webhook", WILD, HOOK, "", CONVERTED),
        legit("… by somebody else", "", HOOK, ""),
        legit("a type that nobody converts", WILD, "annotate crd things.types.example.com a=1", ""),
        attack("a mutating webhook", WILD, "create -f -", "$MUTATING", MUTATING),
        attack("a validating webhook", WILD, "create -f -", "$VALIDATING", VALIDATING),
        attack("an API server of its own", WILD, "create -f -", "$SERVICE", SERVICES),
        legit("somebody else, a mutating webhook", "", "create -f -", "$MUTATING"),
        legit("… a validating one", "", "create -f -", "$VALIDATING"),
        legit("… an API server", "", "create -f -", "$SERVICE"),
    ]);
}

/// Admission policies are exempt from admission, so a role that may write them is not contained.
#[test]
fn role_that_writes_admission_policies_is_not_contained() {
    let (_, daypass) = WallTest::shared();
    let test = wild("walls-wild-policies");
    test.check_all(&[legit(
        "a policy's end",
        WILD,
        "delete validatingadmissionpolicybinding daypass-role-tokens",
        "",
    )]);
    let id = test.fill("$ROLE").replace("daypass-", "");
    let role = eventually("its escapes are known", || {
        let is_known = |role: &Value| role["escapes"].as_array().unwrap().contains(&"ADMISSION_CONTROL".into());
        Some(daypass.listed_role(&id)).filter(is_known)
    });
    assert_eq!(role["contained"], false, "{role}");
}

#[test]
fn member_cannot_manage_members() {
    const NO: (&str, &str) = ("daypass-member", "");
    const OTHER: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member,
        metadata: {name: other, namespace: $ROLE}, spec: {duration: 1h}}";
    let (_, daypass) = WallTest::shared();
    let mut test = wild("walls-wild-members");
    let role = test.fill("$ROLE");
    let member = NewMember::new(&daypass.owner, &test.cluster().wait_role(&role["daypass-".len()..]), 1);
    let itself = format!("system:serviceaccount:{role}:{}", member.name());
    test.set("MEMBER", member.name()).set("ITSELF", &itself).check_all(&[
        attack("another one", "$ITSELF", "create -f -", OTHER, NO),
        attack(
            "itself, longer",
            "$ITSELF",
            r#"patch member $MEMBER -n $ROLE --type=merge -p {"spec":{"duration":"48h"}}"#,
            "",
            NO,
        ),
        attack(
            "its status",
            "$ITSELF",
            r#"patch member $MEMBER -n $ROLE --subresource=status --type=merge -p {"status":{"credentialHash":"00"}}"#,
            "",
            NO,
        ),
        attack("its end", "$ITSELF", "delete member $MEMBER -n $ROLE", "", NO),
        legit("somebody else", "mia", "create -f -", OTHER),
        legit("a read", "$ITSELF", "get members -A", ""),
    ]);
}

#[test]
fn member_cannot_change_daypass_or_role_namespaces() {
    const NO: (&str, &str) =
        ("daypass-member-reach", "a member may not change anything of Daypass's or in a role's namespace");
    const COLLECTION: &str = concat!(
        "delete --raw /apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "?fieldSelector=metadata.name%3Dmembers.daypass.dev&dryRun=All"
    );
    let test = wild("walls-wild-reach");
    let pod = |namespace: &str| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace},
                         "spec": {"containers": [{"name": "c", "image": "x"}]}});
        test.cluster().apply(&pod.to_string());
    };
    pod("daypass");
    pod(&test.fill("$PLAIN"));
    test.check_all(&[
        attack("a ConfigMap in a role's namespace", WILD, "create configmap x -n $ROLE", "", NO),
        attack("a ConfigMap in another role's", WILD, "create configmap x -n daypass-nodes-view", "", NO),
        attack("a ConfigMap in Daypass's", WILD, "create configmap x -n daypass", "", NO),
        attack("Daypass stopped", WILD, "scale deployment daypass -n daypass --replicas=1", "", NO),
        attack("its certificate deleted", WILD, "delete secret daypass-tls -n daypass", "", NO),
        attack("a pod of it deleted", WILD, "delete pod p -n daypass", "", NO),
        attack("a shell in one", WILD, "exec p -n daypass -- id", "", NO),
        attack("its ports", WILD, "get --raw /api/v1/namespaces/daypass/pods/p/proxy/", "", NO),
        attack("a role's namespace annotated", WILD, "annotate namespace daypass-nodes-view a=1", "", NO),
        attack("a role's namespace deleted", WILD, "delete namespace daypass-nodes-view", "", NO),
        attack("Daypass's namespace deleted", WILD, "delete namespace daypass", "", NO),
        attack("its resource changed", WILD, "annotate customresourcedefinition members.daypass.dev a=1", "", NO),
        attack("its resource deleted", WILD, "delete customresourcedefinition members.daypass.dev", "", NO),
        attack("its resource deleted among others", WILD, COLLECTION, "", NO),
        attack("a pod of it restarted", RESTARTER, "delete pod p -n daypass", "", NO),
        legit("a ConfigMap elsewhere", WILD, "create configmap x -n $PLAIN", ""),
        legit("a namespace", WILD, "create namespace walls-wild-own", ""),
        legit("a pod elsewhere deleted", WILD, "delete pod p -n $PLAIN", ""),
        legit("a pod elsewhere restarted", RESTARTER, "delete pod p -n $PLAIN", ""),
        legit("a look at Daypass's namespace", WILD, "get pods -n daypass", ""),
    ]);
}
