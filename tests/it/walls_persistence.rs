//! The policies daypass-member-persistence and daypass-member-reach: what a member does not do, whatever its role allows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

use crate::support::{Created, Stage, attack, legit};

/// A member of a role that may do everything, and one of a role that restarts pods.
const WILD: &str = "system:serviceaccount:$ROLE:w1";
const RESTARTER: &str = "system:serviceaccount:daypass-pods-restart:r1";

fn wild(plain: &str) -> Stage<'static> {
    let (mut stage, _) = Stage::shared();
    let everything = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    let role = stage.lab().role(everything);
    stage.plain(plain).set("ROLE", &role.namespace);
    stage.wait_can(WILD, "create secrets");
    stage
}

#[test]
fn a_member_makes_no_tokens() {
    const TOKENS: (&str, &str) = ("daypass-member-persistence", "a member makes and changes no serviceaccounts/token");
    const SECRETS: (&str, &str) = ("daypass-member-persistence", "a member makes and changes no service-account-token");
    const TOKEN: &str =
        "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: token,
        namespace: $PLAIN, annotations: {kubernetes.io/service-account.name: default}}}";
    const BOOTSTRAP: &str = "{apiVersion: v1, kind: Secret, type: bootstrap.kubernetes.io/token, metadata:
        {name: bootstrap-token-abcdef, namespace: kube-system}, stringData: {token-id: abcdef,
        token-secret: 0123456789abcdef, usage-bootstrap-authentication: 'true'}}";
    const OTHER: &str =
        "{apiVersion: v1, kind: Secret, metadata: {name: other, namespace: $PLAIN}, stringData: {a: b}}";
    let stage = wild("walls-wild-tokens");
    stage.lab().apply(&stage.fill(TOKEN).replace("name: token", "name: theirs"));
    stage.play(&[
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
fn a_member_asks_for_no_certificates() {
    const ASKS: (&str, &str) =
        ("daypass-member-persistence", "a member makes and changes no certificatesigningrequests,");
    const APPROVES: (&str, &str) =
        ("daypass-member-persistence", "a member makes and changes no certificatesigningrequests/approval,");
    const DELETES: (&str, &str) = ("daypass-member-persistence", "a member deletes no certificatesigningrequests,");
    let mut stage = wild("walls-wild-certificates");
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
    stage.lab().apply(&request("walls-theirs"));
    stage.set("REQUEST", &request("walls-new")).play(&[
        attack("for itself", WILD, "create -f -", "$REQUEST", ASKS),
        attack("approves somebody's", WILD, "certificate approve walls-theirs", "", APPROVES),
        attack("deletes somebody's", WILD, "delete csr walls-theirs", "", DELETES),
        legit("somebody else", "", "create -f -", "$REQUEST"),
    ]);
    stage.lab().kubectl(&["certificate", "approve", "walls-theirs"]);
}

#[test]
fn a_member_writes_no_rbac() {
    const ROLES: (&str, &str) = ("daypass-member-persistence", "a member makes and changes no roles,");
    const BINDINGS: (&str, &str) = ("daypass-member-persistence", "a member makes and changes no rolebindings,");
    const CLUSTER_ROLES: (&str, &str) = ("daypass-member-persistence", "a member makes and changes no clusterroles,");
    const CLUSTER_BINDINGS: (&str, &str) =
        ("daypass-member-persistence", "a member makes and changes no clusterrolebindings,");
    const NO_BINDING: (&str, &str) = ("daypass-member-persistence", "a member deletes no rolebindings,");
    let stage = wild("walls-wild-rbac");
    stage.lab().kubectl(&[
        "create",
        "rolebinding",
        "theirs",
        "--clusterrole=view",
        "--user=x",
        "-n",
        &stage.fill("$PLAIN"),
    ]);
    stage.play(&[
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
fn a_member_installs_nothing_that_sees_or_answers_others_requests() {
    const MUTATING: (&str, &str) =
        ("daypass-member-persistence", "a member makes and changes no mutatingwebhookconfigurations");
    const VALIDATING: (&str, &str) =
        ("daypass-member-persistence", "a member makes and changes no validatingwebhookconfigurations");
    const NO_SERVICE: (&str, &str) = ("daypass-member-persistence", "a member deletes no apiservices,");
    const CONVERTED: (&str, &str) = (
        "daypass-member-persistence",
        "a member makes and changes no customresourcedefinitions with a conversion webhook",
    );
    let crd = |strategy: &str| {
        let webhook = json!({"clientConfig": {"url": "https://127.0.0.1:1/x"}, "conversionReviewVersions": ["v1"]});
        let name = if strategy == "None" { "thing" } else { "other" };
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{name}s.types.example.com")},
            "spec": {
                "group": "types.example.com", "scope": "Namespaced", "names": {"kind": format!("Walls{name}"), "plural": format!("{name}s")},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
                "conversion": {"strategy": strategy, "webhook": (strategy == "Webhook").then_some(webhook)},
            },
        })
        .to_string()
    };
    const SERVICES: (&str, &str) = ("daypass-member-persistence", "a member makes and changes no apiservices");
    let mut stage = wild("walls-wild-webhooks");
    let webhook = |kind: &str| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "walls"},
            "webhooks": [{
                "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
                "clientConfig": {"url": "https://127.0.0.1:1/x"},
                "rules": [{"apiGroups": ["x.example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["x"]}],
            }],
        })
        .to_string()
    };
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.walls.example.com"},
        "spec": {"group": "walls.example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
                 "service": {"name": "x", "namespace": "default"}, "insecureSkipTLSVerify": true},
    });
    stage.set("MUTATING", &webhook("MutatingWebhookConfiguration"));
    stage.set("VALIDATING", &webhook("ValidatingWebhookConfiguration")).set("SERVICE", &service.to_string());
    stage.set("CONVERTED", &crd("Webhook"));
    stage.lab().apply(&crd("None"));
    const HOOK: &str = r#"patch crd things.types.example.com --type=merge -p {"spec":{"conversion":{"strategy":"Webhook","webhook":{"clientConfig":{"url":"https://127.0.0.1:1/x"},"conversionReviewVersions":["v1"]}}}}"#;
    stage.play(&[
        attack("an API server's end", WILD, "delete apiservice v1.apps", "", NO_SERVICE),
        attack("a type that it converts", WILD, "create -f -", "$CONVERTED", CONVERTED),
        attack("somebody's type, converted by it", WILD, HOOK, "", CONVERTED),
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

/// Admission policies are exempt from admission: no policy can refuse these. Who may write them is therefore not contained.
#[test]
fn a_member_whose_role_writes_admission_policies_can_remove_them_and_the_role_says_so() {
    let (_, daypass) = Stage::shared();
    let stage = wild("walls-wild-policies");
    stage.play(&[legit("a policy's end", WILD, "delete validatingadmissionpolicybinding daypass-role-tokens", "")]);
    let roles = daypass.owner.get("/members/roles").expect(200).json();
    let id = stage.fill("$ROLE").replace("daypass-", "");
    let role = roles["items"].as_array().unwrap().iter().find(|role| role["id"] == *id).unwrap();
    assert_eq!(role["contained"], false, "{role}");
    assert!(role["escapes"].as_array().unwrap().contains(&"ADMISSION_CONTROL".into()), "{role}");
}

#[test]
fn a_member_manages_no_members() {
    const NO: (&str, &str) = ("daypass-member", "");
    const OTHER: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, metadata: {name: other, namespace: $ROLE}, spec: {duration: 1h}}";
    let (_, daypass) = Stage::shared();
    let mut stage = wild("walls-wild-members");
    let role = stage.fill("$ROLE");
    let member = Created::new(&daypass.owner, &stage.lab().wait_role(&role["daypass-".len()..]), 1);
    let itself = format!("system:serviceaccount:{role}:{}", member.name());
    stage.set("MEMBER", member.name()).set("ITSELF", &itself).play(&[
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
        legit("a look", "$ITSELF", "get members -A", ""),
    ]);
}

#[test]
fn a_member_changes_nothing_of_daypasss_own_or_in_a_roles_namespace() {
    const NO: (&str, &str) =
        ("daypass-member-reach", "a member changes nothing of Daypass's own or in a role's namespace");
    const COLLECTION: &str = "delete --raw /apis/apiextensions.k8s.io/v1/customresourcedefinitions?fieldSelector=metadata.name%3Dmembers.daypass.dev&dryRun=All";
    let stage = wild("walls-wild-reach");
    let pod = |namespace: &str| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace},
                         "spec": {"containers": [{"name": "c", "image": "x"}]}});
        stage.lab().apply(&pod.to_string());
    };
    pod("daypass");
    pod(&stage.fill("$PLAIN"));
    stage.play(&[
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
