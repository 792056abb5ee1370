//! The policies around what is in a role's namespace: daypass-role-serviceaccounts, -tokens, -secrets, -pods and -rbac, and
//! daypass-own-namespace beside them.

use serde_json::json;

use crate::support::{Created, DAYPASS, Stage, attack, legit};

/// Kubernetes' controllers: with an identity of their own each, or all with that of their process.
const ACCOUNTS: &str = "system:serviceaccount:kube-system:service-account-controller";
const COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";
const NAMESPACES: &str = "system:serviceaccount:kube-system:namespace-controller";
const MANAGER: &str = "system:kube-controller-manager";

/// A role with a member, `$ROLE` and `$MEMBER`, and one kubeconfig of it, the Secret `$MEMBER.0`.
fn with_member(plain: &str) -> Stage<'static> {
    let (mut stage, daypass) = Stage::shared();
    let lab = stage.lab();
    let role = lab.reader();
    let member = Created::new(&daypass.owner, &role, 1);
    member.kubeconfig(lab);
    let secret = format!("{}.0", member.name());
    let uid = |kind: &str, name: &str| {
        lab.object(&role.namespace, kind, name).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    stage.plain(plain).set("ROLE", &role.namespace).set("MEMBER", member.name());
    stage.set("UID", &uid("member", member.name())).set("SECRET_UID", &uid("secret", &secret));
    stage
}

#[test]
fn service_accounts_in_a_roles_namespace_are_made_and_changed_by_daypass_alone() {
    const ALONE: (&str, &str) =
        ("daypass-role-serviceaccounts", "a service account in a role's namespace holds the role; only Daypass makes");
    const OWNED: (&str, &str) =
        ("daypass-role-serviceaccounts", "a service account in a role's namespace is owned by the Member of its name");
    const OTHER: &str =
        "{apiVersion: v1, kind: ServiceAccount, metadata: {name: other, namespace: $ROLE, ownerReferences:
        [{apiVersion: daypass.dev/v1alpha1, kind: Member, name: $MEMBER, uid: $UID}]}}";
    const OWN: &str =
        "{apiVersion: v1, kind: ServiceAccount, metadata: {name: other, namespace: $ROLE, ownerReferences:
        [{apiVersion: daypass.dev/v1alpha1, kind: Member, name: other, uid: $UID}]}}";
    with_member("walls-accounts").play(&[
        attack("made by `edit`", "eve", "create serviceaccount evil -n $ROLE", "", ALONE),
        attack("… with an owner", "eve", "create -f -", OWN, ALONE),
        attack("… by the administrator", "", "create serviceaccount evil -n $ROLE", "", ALONE),
        attack("a member's changed", "eve", "annotate serviceaccount $MEMBER a=1 -n $ROLE", "", ALONE),
        attack("`default` changed", "eve", "annotate serviceaccount default a=1 -n $ROLE", "", ALONE),
        attack("`default` changed by the administrator", "", "label serviceaccount default a=1 -n $ROLE", "", ALONE),
        attack(
            "made by Kubernetes, another than `default`",
            ACCOUNTS,
            "create serviceaccount evil -n $ROLE",
            "",
            ALONE,
        ),
        attack("… in one process", MANAGER, "create serviceaccount evil -n $ROLE", "", ALONE),
        legit("let go by the garbage collector", COLLECTOR, "annotate serviceaccount $MEMBER a=1 -n $ROLE", ""),
        legit("made elsewhere", "eve", "create serviceaccount fine -n $PLAIN", ""),
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
fn tokens_in_a_roles_namespace_are_made_by_daypass_alone() {
    const ALONE: (&str, &str) = ("daypass-role-tokens", "only Daypass makes tokens in a role's namespace");
    with_member("walls-tokens").play(&[
        attack("ten years for `default`", "eve", "create token default -n $ROLE --duration=87600h", "", ALONE),
        attack("an hour for a member", "eve", "create token $MEMBER -n $ROLE", "", ALONE),
        attack("… by the administrator", "", "create token $MEMBER -n $ROLE", "", ALONE),
        legit("ten years elsewhere", "eve", "create token default -n $PLAIN --duration=87600h", ""),
    ]);
}

#[test]
fn even_daypasss_own_tokens_are_for_members_end_are_bound_and_for_the_api_server_alone() {
    const LIFE: (&str, &str) = ("daypass-role-tokens", "a token lives for 48 hours (172800 s) at most");
    const BOUND: (&str, &str) = ("daypass-role-tokens", "a token is bound to a Secret, by name and UID");
    const AUDIENCE: (&str, &str) = ("daypass-role-tokens", "a token is for the API server alone");
    const DEFAULT: (&str, &str) = ("daypass-role-tokens", "default is no member, it has no token");
    const MEMBERS: &str = "create --raw /api/v1/namespaces/$ROLE/serviceaccounts/$MEMBER/token?dryRun=All -f -";
    const DEFAULTS: &str = "create --raw /api/v1/namespaces/$ROLE/serviceaccounts/default/token?dryRun=All -f -";
    let mut stage = with_member("walls-bounds");
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
        let filled = stage.fill(&request.to_string());
        stage.set(name, &filled);
    }
    stage.play(&[
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
fn secrets_in_a_roles_namespace_are_made_by_daypass_alone_and_hold_nothing() {
    const ALONE: (&str, &str) =
        ("daypass-role-secrets", "only Daypass makes and changes Secrets in a role's namespace");
    const EMPTY: (&str, &str) = ("daypass-role-secrets", "a Secret in a role's namespace is Opaque and empty");
    const TOKEN: &str =
        "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: evil,
        namespace: $ROLE, annotations: {kubernetes.io/service-account.name: $MEMBER}}}";
    const OPAQUE: &str = "{apiVersion: v1, kind: Secret, metadata: {name: evil, namespace: $ROLE}}";
    const FILLED: &str = "{apiVersion: v1, kind: Secret, metadata: {name: evil, namespace: $ROLE}, stringData: {a: b}}";
    const FILL: &str = r#"patch secret $MEMBER.0 -n $ROLE --type=merge -p {"stringData":{"a":"b"}}"#;
    const PROLONG: &str = r#"patch secret $MEMBER.0 -n $ROLE --type=merge -p {"metadata":{"annotations":{"daypass.dev/expires-at":"2099-01-01T00:00:00Z"}}}"#;
    let stage = with_member("walls-secrets");
    // kubectl reads before it patches, which Daypass may not.
    stage.grant_daypass("get", "secrets");
    stage.play(&[
        attack("a token that never ends, of a member", "eve", "create -f -", TOKEN, ALONE),
        attack("an empty one", "eve", "create -f -", OPAQUE, ALONE),
        attack("… by the administrator", "", "create -f -", OPAQUE, ALONE),
        attack("a kubeconfig's, prolonged", "eve", PROLONG, "", ALONE),
        legit("elsewhere", "eve", "create secret generic fine -n $PLAIN --from-literal=a=b", ""),
        attack("Daypass, a token that never ends", DAYPASS, "create -f -", TOKEN, EMPTY),
        attack("Daypass, one with data", DAYPASS, "create -f -", FILLED, EMPTY),
        attack("Daypass, data later", DAYPASS, FILL, "", EMPTY),
        legit("Daypass, an empty one", DAYPASS, "create -f -", OPAQUE),
        legit("Daypass, an annotation", DAYPASS, PROLONG, ""),
    ]);
}

#[test]
fn nothing_runs_in_a_roles_namespace() {
    const NOTHING: (&str, &str) = ("daypass-role-pods", "nothing runs in a role's namespace");
    // What the namespace's Pod Security level would let through.
    const SPEC: &str = "spec: {securityContext: {runAsNonRoot: true, runAsUser: 1, seccompProfile: {type: RuntimeDefault}},
        containers: [{name: c, image: x, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}}";
    let mut stage = with_member("walls-pods");
    let pod =
        |namespace: &str| format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: {namespace}}}, {SPEC}");
    let (inside, outside) = (stage.fill(&pod("$ROLE")), stage.fill(&pod("$PLAIN")));
    stage.set("INSIDE", &inside).set("OUTSIDE", &outside).play(&[
        attack("by `edit`", "eve", "create -f -", "$INSIDE", NOTHING),
        attack("by the administrator", "", "create -f -", "$INSIDE", NOTHING),
        legit("elsewhere", "eve", "create -f -", "$OUTSIDE"),
    ]);
}

#[test]
fn roles_and_bindings_in_a_roles_namespace_take_the_right_to_manage_roles() {
    const MANAGE: (&str, &str) =
        ("daypass-role-rbac", "Roles and RoleBindings in a role's namespace take the right to manage");
    with_member("walls-rbac").play(&[
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
        legit("elsewhere", "adam", "create rolebinding b --clusterrole=view --user=adam -n $PLAIN", ""),
        legit("Kubernetes empties a namespace", NAMESPACES, "delete rolebinding daypass -n $ROLE", ""),
        legit("the administrator", "", "create rolebinding b --clusterrole=view --user=x -n $ROLE", ""),
        legit("GitOps", "gitops", "create rolebinding b --clusterrole=daypass-engines-manage --user=x -n $ROLE", ""),
    ]);
}

#[test]
fn in_its_own_namespace_daypass_makes_its_lease_and_its_certificate_alone() {
    const OWN: (&str, &str) = ("daypass-own-namespace", "in its own namespace Daypass makes the Lease daypass and");
    let (stage, _) = Stage::shared();
    let lab = stage.lab();
    stage.play(&[
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
    // Those two passed: the shared Daypass made them when it started.
    for (kind, name) in [("lease", "daypass"), ("secret", "daypass-tls")] {
        assert!(lab.object("daypass", kind, name).is_some(), "{kind} {name}");
    }
}

#[test]
fn daypass_itself_has_no_right_to_rbac_to_identities_or_to_what_secrets_hold() {
    let stage = with_member("walls-rights");
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
        let output = stage.run(DAYPASS, &format!("auth can-i {what}"), "");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "no", "{what}: {output:?}");
    }
    for what in ["create members.daypass.dev -n $ROLE", "list secrets -n $ROLE", "list clusterroles"] {
        let output = stage.run(DAYPASS, &format!("auth can-i {what}"), "");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "yes", "{what}: {output:?}");
    }
}
