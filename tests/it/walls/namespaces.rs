//! The policy daypass-namespaces: what makes a namespace a role.

use serde_json::json;

use crate::support::{NewMember, WallTest, attack, eventually, legit};

/// Not without the right to manage roles.
const MANAGE: (&str, &str) =
    ("daypass-namespaces", "the name prefix daypass- and the label daypass.dev/role-id make a role");
/// Not even with it.
const TOGETHER: (&str, &str) = ("daypass-namespaces", "a role's namespace is named daypass-<id>");

#[test]
fn creating_a_role_namespace_needs_the_right_to_manage_roles() {
    let (mut test, _) = WallTest::shared();
    let role = test.cluster().reader();
    test.set("ID", &role.id).check_all(&[
        attack(
            "a role's namespace",
            "nina",
            "create -f -",
            "{apiVersion: v1, kind: Namespace, metadata: {name: daypass-evil, labels: {daypass.dev/role-id: evil}}}",
            MANAGE,
        ),
        attack("the name alone", "nina", "create namespace daypass-evil", "", MANAGE),
        attack(
            "the name, chosen by the API server",
            "nina",
            "create -f -",
            "{apiVersion: v1, kind: Namespace, metadata: {generateName: daypass-}}",
            MANAGE,
        ),
        attack(
            "the label alone, another role's",
            "nina",
            "create -f -",
            "{apiVersion: v1, kind: Namespace, metadata: {name: evil, labels: {daypass.dev/role-id: $ID}}}",
            MANAGE,
        ),
        legit("an ordinary namespace", "nina", "create namespace ordinary", ""),
        legit(
            "a similar name",
            "nina",
            "create -f -",
            "{apiVersion: v1, kind: Namespace, metadata: {name: daypassing, labels: {example.com/role-id: $ID}}}",
        ),
    ]);
}

#[test]
fn role_prefix_and_label_must_match_for_everyone() {
    let (test, _) = WallTest::shared();
    test.check_all(&[
        attack("the name alone", "", "create namespace daypass-evil", "", TOGETHER),
        attack(
            "a label that is not the name's",
            "",
            "create -f -",
            "{apiVersion: v1, kind: Namespace,
                metadata: {name: daypass-evil, labels: {daypass.dev/role-id: projects-view}}}",
            TOGETHER,
        ),
        attack(
            "the label on another namespace",
            "gitops",
            "create -f -",
            "{apiVersion: v1, kind: Namespace, metadata: {name: evil, labels: {daypass.dev/role-id: evil}}}",
            TOGETHER,
        ),
        attack(
            "an empty label",
            "",
            "create -f -",
            "{apiVersion: v1, kind: Namespace, metadata: {name: evil, labels: {daypass.dev/role-id: ''}}}",
            TOGETHER,
        ),
        legit(
            "both, equal",
            "",
            "create -f -",
            "{apiVersion: v1, kind: Namespace, metadata: {name: daypass-fine, labels: {daypass.dev/role-id: fine}}}",
        ),
        legit(
            "by a GitOps controller that may manage roles",
            "gitops",
            "create -f -",
            "{apiVersion: v1, kind: Namespace, metadata: {name: daypass-fine, labels: {daypass.dev/role-id: fine}}}",
        ),
    ]);
}

#[test]
fn namespace_cannot_become_or_change_a_role() {
    let (mut test, _) = WallTest::shared();
    let role = test.cluster().reader();
    test.plain("walls-later").set("ROLE", &role.namespace);
    let labelled = r#"{"apiVersion":"v1","kind":"Namespace",
        "metadata":{"name":"$PLAIN","labels":{"daypass.dev/role-id":"projects-view"}},
        "spec":{"finalizers":["kubernetes"]}}"#;
    test.check_all(&[
        attack("a role's label", "nina", "label namespace $PLAIN daypass.dev/role-id=projects-view", "", MANAGE),
        attack(
            "… through the status",
            "nina",
            "replace --raw /api/v1/namespaces/$PLAIN/status?dryRun=All -f -",
            labelled,
            MANAGE,
        ),
        attack(
            "… through the finalizers",
            "nina",
            "replace --raw /api/v1/namespaces/$PLAIN/finalize?dryRun=All -f -",
            labelled,
            MANAGE,
        ),
        attack("… by the administrator", "", "label namespace $PLAIN daypass.dev/role-id=projects-view", "", TOGETHER),
        attack("a role's label is taken away", "nina", "label namespace $ROLE daypass.dev/role-id-", "", MANAGE),
        attack("… by the administrator", "", "label namespace $ROLE daypass.dev/role-id-", "", TOGETHER),
        attack(
            "a role is given another's name to show",
            "nina",
            "annotate --overwrite namespace $ROLE daypass.dev/name=Harmless",
            "",
            MANAGE,
        ),
        attack(
            "… or description",
            "nina",
            "annotate --overwrite namespace $ROLE daypass.dev/description=Harmless",
            "",
            MANAGE,
        ),
        attack(
            "… or direct kubeconfigs",
            "nina",
            "annotate namespace $ROLE daypass.dev/kubeconfig-mode=direct",
            "",
            MANAGE,
        ),
        attack("… or a longer duration", "nina", "annotate namespace $ROLE daypass.dev/max-duration=48h", "", MANAGE),
        legit("another label", "nina", "label namespace $PLAIN team=blue", ""),
        legit(
            "another annotation, as cluster controllers write",
            "nina",
            "annotate namespace $ROLE example.com/a=1",
            "",
        ),
        legit(
            "a role is renamed by who may",
            "gitops",
            "annotate --overwrite namespace $ROLE daypass.dev/name=New",
            "",
        ),
        legit("an ordinary namespace is deleted", "nina", "delete namespace $PLAIN", ""),
    ]);
}

#[test]
fn gitops_controller_needs_the_right_to_manage_roles() {
    let (test, daypass) = WallTest::shared();
    let cluster = test.cluster();
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]);
    let manifests = cluster.render_role("from-gitops", &json!({"rules": rules}));
    // RBAC lets Rosa write everything in them.
    let refused = cluster.try_apply(&["--as=rosa"], &manifests);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("Daypass (policy daypass-namespaces)"), "{message}");
    assert!(message.contains("(ClusterRole daypass-roles-manage)"), "{message}");
    assert_eq!(cluster.object("default", "namespace", "daypass-from-gitops"), None);

    let applied = cluster.try_apply(&["--as=gitops"], &manifests);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let role = cluster.wait_role("from-gitops");
    let found = eventually("its rights are known", || {
        Some(daypass.listed_role("from-gitops")).filter(|role| role["contained"] == true)
    });
    assert_eq!(found["name"], "Role from-gitops");
    let kubeconfig = NewMember::new(&daypass.owner, &role, 1).kubeconfig(cluster);
    assert!(cluster.kubectl_with(&kubeconfig.file, &["get", "configmaps", "-A"]).status.success());
}
