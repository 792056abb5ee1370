//! The policies for objects in a role's namespace: daypass-role-serviceaccounts, -tokens, -secrets, -pods and -rbac,
//! and daypass-own-namespace.

use serde_json::json;

use crate::support::{DAYPASS, NewMember, WallTest, attack, legit};

/// Kubernetes' controllers, each with its own identity or all with their process's.
const ACCOUNTS: &str = "system:serviceaccount:kube-system:service-account-controller";
const COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";
const NAMESPACES: &str = "system:serviceaccount:kube-system:namespace-controller";
const MANAGER: &str = "system:kube-controller-manager";

/// A role `$ROLE` with a member `$MEMBER` and its kubeconfig's Secret `$MEMBER.0`.
fn with_member(plain: &str) -> WallTest<'static> {
    let (mut test, daypass) = WallTest::shared();
    let cluster = test.cluster();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    member.kubeconfig(cluster);
    let secret = format!("{}.0", member.name());
    let uid = |kind: &str, name: &str| {
        cluster.object(&role.namespace, kind, name).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    test.plain(plain).set("ROLE", &role.namespace).set("MEMBER", member.name());
    test.set("UID", &uid("member", member.name())).set("SECRET_UID", &uid("secret", &secret));
    test
}

#[test]
fn only_daypass_writes_service_accounts_in_roles() {
    const ALONE: (&str, &str) =
        ("daypass-role-serviceaccounts", "a service account in a role's namespace holds the role; only Daypass makes");
    const OWNED: (&str, &str) = (
        "daypass-role-serviceaccounts",
        "a service account in a role's namespace must be owned by the Member of its name",
    );
    const OTHER: &str =
        "{apiVersion: v1, kind: ServiceAccount, metadata: {name: other, namespace: $ROLE, ownerReferences:
        [{apiVersion: daypass.dev/v1alpha1, kind: Member, name: $MEMBER, uid: $UID}]}}";
    const OWN: &str =
        "{apiVersion: v1, kind: ServiceAccount, metadata: {name: other, namespace: $ROLE, ownerReferences:
        [{apiVersion: daypass.dev/v1alpha1, kind: Member, name: other, uid: $UID}]}}";
    with_member("walls-accounts").check_all(&[
        attack("created with `edit`", "eve", "create serviceaccount evil -n $ROLE", "", ALONE),
        attack("… with an owner", "eve", "create -f -", OWN, ALONE),
        attack("… by the administrator", "", "create serviceaccount evil -n $ROLE", "", ALONE),
        attack("a member's changed", "eve", "annotate serviceaccount $MEMBER a=1 -n $ROLE", "", ALONE),
        attack("`default` changed", "eve", "annotate serviceaccount default a=1 -n $ROLE", "", ALONE),
        attack("`default` changed by the administrator", "", "label serviceaccount default a=1 -n $ROLE", "", ALONE),
        attack(
            "another account than `default`, by Kubernetes",
            ACCOUNTS,
            "create serviceaccount evil -n $ROLE",
            "",
            ALONE,
        ),
        attack("… in one process", MANAGER, "create serviceaccount evil -n $ROLE", "", ALONE),
        legit(
            "a finalizer removed by the garbage collector",
            COLLECTOR,
            "annotate serviceaccount $MEMBER a=1 -n $ROLE",
            "",
        ),
        legit("created in another namespace", "eve", "create serviceaccount fine -n $PLAIN", ""),
        legit("changed elsewhere", "eve", "annotate serviceaccount default a=1 -n $PLAIN", ""),
        attack("Daypass, without an owner", DAYPASS, "create serviceaccount other -n $ROLE", "", OWNED),
        attack("Daypass, owned by a Member of another name", DAYPASS, "create -f -", OTHER, OWNED),
        attack(
            "Daypass, owned by something else of its name",
            DAYPASS,
            "create -f -",
            "{apiVersion: v1, kind: ServiceAccount, metadata: {name: other, namespace: $ROLE, ownerReferences:
                [{apiVersion: v1, kind: Secret, name: other, uid: $UID}]}}",
            OWNED,
        ),
        legit("Daypass, owned by the Member of its name", DAYPASS, "create -f -", OWN),
    ]);
}

#[test]
fn only_daypass_creates_tokens_in_roles() {
    const ALONE: (&str, &str) = ("daypass-role-tokens", "only Daypass makes tokens in a role's namespace");
    with_member("walls-tokens").check_all(&[
        attack("ten years for `default`", "eve", "create token default -n $ROLE --duration=87600h", "", ALONE),
        attack("an hour for a member", "eve", "create token $MEMBER -n $ROLE", "", ALONE),
        attack("… by the administrator", "", "create token $MEMBER -n $ROLE", "", ALONE),
        legit("ten years elsewhere", "eve", "create token default -n $PLAIN --duration=87600h", ""),
    ]);
}

#[test]
fn daypass_creates_only_bound_expiring_member_tokens() {
    const LIFE: (&str, &str) = ("daypass-role-tokens", "a token lives for 172800 s at most");
    const BOUND: (&str, &str) = ("daypass-role-tokens", "a token must be bound to a Secret, by name and UID");
    const AUDIENCE: (&str, &str) = ("daypass-role-tokens", "a token must be for the API server alone");
    const DEFAULT: (&str, &str) = ("daypass-role-tokens", "default is not a member and gets no token");
    const MEMBERS: &str = "create --raw /api/v1/namespaces/$ROLE/serviceaccounts/$MEMBER/token?dryRun=All -f -";
    const DEFAULTS: &str = "create --raw /api/v1/namespaces/$ROLE/serviceaccounts/default/token?dryRun=All -f -";
    let mut test = with_member("walls-bounds");
    let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": "$MEMBER.0", "uid": "$SECRET_UID"});
    let nameless = json!({"apiVersion": "v1", "kind": "Secret", "name": "$MEMBER.0"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "name": "$MEMBER.0", "uid": "$SECRET_UID"});
    let api_server = "https://kubernetes.default.svc";
    for (name, seconds, bound, audiences) in [
        ("HOUR", 3600, &bound, json!([])),
        ("NAMED", 3600, &bound, json!([api_server])),
        ("DAYS", 172_800, &bound, json!([])),
        ("LONGER", 172_801, &bound, json!([])),
        ("CENTURY", 4_294_967_296_i64, &bound, json!([])),
        ("UNBOUND", 3600, &json!(null), json!([])),
        ("NO_UID", 3600, &nameless, json!([])),
        ("NODE", 3600, &node, json!([])),
        ("VAULT", 3600, &bound, json!(["vault"])),
        ("BOTH", 3600, &bound, json!([api_server, "vault"])),
    ] {
        let spec = json!({"expirationSeconds": seconds, "boundObjectRef": bound, "audiences": audiences});
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let filled = test.fill(&request.to_string());
        test.set(name, &filled);
    }
    test.check_all(&[
        attack("for `default`", DAYPASS, DEFAULTS, "$HOUR", DEFAULT),
        attack("for 136 years", DAYPASS, MEMBERS, "$CENTURY", LIFE),
        attack("for 48 hours and a second", DAYPASS, MEMBERS, "$LONGER", LIFE),
        attack("bound to nothing", DAYPASS, MEMBERS, "$UNBOUND", BOUND),
        attack("bound to any Secret of a name", DAYPASS, MEMBERS, "$NO_UID", BOUND),
        attack("bound to a node", DAYPASS, MEMBERS, "$NODE", BOUND),
        attack("for somebody else", DAYPASS, MEMBERS, "$VAULT", AUDIENCE),
        attack("for somebody else too", DAYPASS, MEMBERS, "$BOTH", AUDIENCE),
        legit("for 48 hours", DAYPASS, MEMBERS, "$DAYS"),
        legit("for the API server by name", DAYPASS, MEMBERS, "$NAMED"),
    ]);
}

#[test]
fn only_daypass_creates_empty_secrets_in_roles() {
    const ALONE: (&str, &str) =
        ("daypass-role-secrets", "only Daypass makes and changes Secrets in a role's namespace");
    const EMPTY: (&str, &str) = ("daypass-role-secrets", "a Secret in a role's namespace must be Opaque and empty");
    const TOKEN: &str =
        "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: evil,
        namespace: $ROLE, annotations: {kubernetes.io/service-account.name: $MEMBER}}}";
    const OPAQUE: &str = "{apiVersion: v1, kind: Secret, metadata: {name: evil, namespace: $ROLE}}";
    const FILLED: &str =
        "{apiVersion: v1, kind: Secret, metadata: {name: evil, namespace: $ROLE}, stringData: {a: b}}";
    const FILL: &str = r#"patch secret $MEMBER.0 -n $ROLE --type=merge -p {"stringData":{"a":"b"}}"#;
    const PROLONG: &str = concat!(
        "patch secret $MEMBER.0 -n $ROLE --type=merge ",
        r#"-p {"metadata":{"annotations":{"daypass.dev/expires-at":"2099-01-01T00:00:00Z"}}}"#
    );
    let test = with_member("walls-secrets");
    // kubectl reads before it patches, which Daypass may not.
    test.grant_daypass("get", "secrets");
    test.check_all(&[
        attack("a token that never ends, of a member", "eve", "create -f -", TOKEN, ALONE),
        attack("an empty one", "eve", "create -f -", OPAQUE, ALONE),
        attack("… by the administrator", "", "create -f -", OPAQUE, ALONE),
        attack("a kubeconfig's, prolonged", "eve", PROLONG, "", ALONE),
        legit("in another namespace", "eve", "create secret generic fine -n $PLAIN --from-literal=a=b", ""),
        attack("Daypass, a token that never ends", DAYPASS, "create -f -", TOKEN, EMPTY),
        attack("Daypass, one with data", DAYPASS, "create -f -", FILLED, EMPTY),
        attack("Daypass, data later", DAYPASS, FILL, "", EMPTY),
        legit("Daypass, an empty one", DAYPASS, "create -f -", OPAQUE),
        legit("Daypass, an annotation", DAYPASS, PROLONG, ""),
    ]);
}

#[test]
fn nothing_runs_in_a_role_namespace() {
    const NOTHING: (&str, &str) = ("daypass-role-pods", "nothing runs in a role's namespace");
    // A pod that the namespace's Pod Security level allows.
    const SPEC: &str = "spec: {
        securityContext: {runAsNonRoot: true, runAsUser: 1, seccompProfile: {type: RuntimeDefault}},
        containers: [{name: c, image: x,
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}}";
    let mut test = with_member("walls-pods");
    let pod = |namespace: &str| {
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: {namespace}}}, {SPEC}")
    };
    let (inside, outside) = (test.fill(&pod("$ROLE")), test.fill(&pod("$PLAIN")));
    test.set("INSIDE", &inside).set("OUTSIDE", &outside).check_all(&[
        attack("by `edit`", "eve", "create -f -", "$INSIDE", NOTHING),
        attack("by the administrator", "", "create -f -", "$INSIDE", NOTHING),
        legit("in another namespace", "eve", "create -f -", "$OUTSIDE"),
    ]);
}

#[test]
fn rbac_in_roles_needs_the_right_to_manage_roles() {
    const MANAGE: (&str, &str) =
        ("daypass-role-rbac", "Roles and RoleBindings in a role's namespace need the right to manage");
    with_member("walls-rbac").check_all(&[
        attack(
            "`admin`, a binding",
            "adam",
            "create rolebinding b --clusterrole=view --user=adam -n $ROLE",
            "",
            MANAGE,
        ),
        attack("… a role", "adam", "create role evil --verb=get --resource=pods -n $ROLE", "", MANAGE),
        attack("Daypass's changed", "rosa", "annotate role daypass a=1 -n $ROLE", "", MANAGE),
        attack("Daypass's taken away", "adam", "delete rolebinding daypass -n $ROLE", "", MANAGE),
        attack(
            "all of RBAC is not enough",
            "rosa",
            "create rolebinding b --clusterrole=view --user=x -n $ROLE",
            "",
            MANAGE,
        ),
        legit("in another namespace", "adam", "create rolebinding b --clusterrole=view --user=adam -n $PLAIN", ""),
        legit("Kubernetes empties a namespace", NAMESPACES, "delete rolebinding daypass -n $ROLE", ""),
        legit("the administrator", "", "create rolebinding b --clusterrole=view --user=x -n $ROLE", ""),
        legit("GitOps", "gitops", "create rolebinding b --clusterrole=daypass-engines-manage --user=x -n $ROLE", ""),
    ]);
}

#[test]
fn daypass_creates_only_lease_and_certificate_in_its_namespace() {
    const OWN: (&str, &str) =
        ("daypass-own-namespace", "in its own namespace Daypass may create only the Lease daypass and");
    let (test, _) = WallTest::shared();
    let cluster = test.cluster();
    test.check_all(&[
        attack(
            "a token of its own that never ends",
            DAYPASS,
            "create -f -",
            "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: evil,
                namespace: daypass, annotations: {kubernetes.io/service-account.name: daypass}}}",
            OWN,
        ),
        attack(
            "… under its certificate's name",
            DAYPASS,
            "create -f -",
            "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: daypass-tls,
                namespace: daypass, annotations: {kubernetes.io/service-account.name: daypass}}}",
            OWN,
        ),
        attack(
            "another Lease",
            DAYPASS,
            "create -f -",
            "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: other, namespace: daypass}}",
            OWN,
        ),
    ]);
    // Those two passed when the shared Daypass started.
    for (kind, name) in [("lease", "daypass"), ("secret", "daypass-tls")] {
        assert!(cluster.object("daypass", kind, name).is_some(), "{kind} {name}");
    }
}

#[test]
fn daypass_cannot_write_rbac_impersonate_or_read_secrets() {
    let test = with_member("walls-rights");
    for what in [
        "create rolebindings -n $ROLE",
        "create clusterrolebindings",
        "update clusterroles",
        "bind clusterroles",
        "escalate clusterroles",
        "impersonate users",
        "impersonate serviceaccounts -n $ROLE",
        "get secrets -n $ROLE",
        "list secrets -A",
        "get secrets -n $PLAIN",
        "list secrets -n daypass",
        "create serviceaccounts -n $PLAIN",
        "create serviceaccounts/token -n $PLAIN",
        "create serviceaccounts/token -n daypass",
        "create pods -n daypass",
        "delete namespaces",
        "manage roles.daypass.dev",
        "update validatingadmissionpolicies",
    ] {
        let output = test.run(DAYPASS, &format!("auth can-i {what}"), "");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "no", "{what}: {output:?}");
    }
    for what in ["create members.daypass.dev -n $ROLE", "list secrets -n $ROLE", "list clusterroles"] {
        let output = test.run(DAYPASS, &format!("auth can-i {what}"), "");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "yes", "{what}: {output:?}");
    }
}
