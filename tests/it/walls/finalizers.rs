//! Objects that are being deleted: anybody with the right may remove a finalizer, and change nothing else.

use serde_json::{Value, json};

use crate::support::{Attempt, Cluster, WallTest, attack, eventually, legit};

/// The objects that a test holds by two finalizers. The walls guard updates of each kind.
const KINDS: [(&str, &str); 8] = [
    ("serviceaccount", "$ROLE"),
    ("secret", "$ROLE"),
    ("role", "$ROLE"),
    ("rolebinding", "$ROLE"),
    ("member", "$ROLE"),
    ("accesstoken", "daypass"),
    ("csr", ""),
    ("namespace", ""),
];

/// Creates an object called `held` with two finalizers for each of [`KINDS`], and begins to delete it. The walls would
/// refuse most of them.
fn hold(cluster: &Cluster, role: &str) {
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let held = |version: &str, kind: &str, namespace: &str| {
        let name = if kind == "Namespace" { "daypass-held" } else { "held" };
        let metadata = json!({
            "name": name, "namespace": namespace, "finalizers": ["example.com/hold", "example.com/other"],
        });
        json!({"apiVersion": version, "kind": kind, "metadata": metadata})
    };
    let with = |mut object: Value, more: Value| {
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object
    };
    let rbac = "rbac.authorization.k8s.io";
    let group = "daypass.dev/v1alpha1";
    let token = json!({
        "id": "held-aaaaaa", "name": "held", "owner": {"username": "system:serviceaccount:default:x"},
        "createdBy": "x", "scopes": ["members:write"], "expiresAt": "2099-01-01T00:00:00Z",
        "tokenHash": "a".repeat(64), "identity": "i",
    });
    let request = super::certificates::request("held", &[("system:serviceaccounts:daypass-x", false)]);
    let request: Value = serde_json::from_str(&request).unwrap();
    let mut namespace = held("v1", "Namespace", "");
    namespace["metadata"]["labels"] = json!({"daypass.dev/role-id": "held"});
    let rbac_version = format!("{rbac}/v1");
    let reference = json!({"apiGroup": rbac, "kind": "ClusterRole", "name": "view"});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        held("v1", "ServiceAccount", role),
        with(held("v1", "Secret", role), json!({"stringData": {"a": "b"}})),
        with(held(&rbac_version, "Role", role), json!({"rules": [rule]})),
        with(held(&rbac_version, "RoleBinding", role), json!({"roleRef": reference, "subjects": []})),
        with(held(group, "Member", role), json!({"spec": {"duration": "1h"}})),
        with(held(group, "AccessToken", "daypass"), json!({"spec": token})),
        with(held("certificates.k8s.io/v1", "CertificateSigningRequest", ""), json!({"spec": request["spec"]})),
        namespace,
    ]});
    cluster.apply(&objects.to_string());
    for (kind, namespace) in KINDS {
        let delete = format!("delete {} --wait=false", object(kind, namespace)).replace("$ROLE", role);
        cluster.kubectl(&delete.split(' ').collect::<Vec<_>>());
    }
}

/// kubectl's arguments for a held object.
fn object(kind: &str, namespace: &str) -> String {
    match (kind, namespace) {
        ("namespace", _) => "namespace daypass-held".to_owned(),
        (kind, "") => format!("{kind} held"),
        _ => format!("{kind} held -n {namespace}"),
    }
}

/// Changes of the held objects, each more than the removal of finalizers.
fn changes() -> Vec<Attempt> {
    const ACCOUNT: (&str, &str) = ("daypass-role-serviceaccounts", "");
    const SECRET: (&str, &str) = ("daypass-role-secrets", "");
    const RBAC: (&str, &str) = ("daypass-role-rbac", "");
    const TOKEN: (&str, &str) = ("daypass-accesstokens", "");
    const CERTIFICATE: (&str, &str) = ("daypass-certificates", "");
    const MEMBER: (&str, &str) = ("daypass-members", "");
    const NAMESPACE: (&str, &str) = ("daypass-namespaces", "");
    const WIDEN: &str = concat!(
        "patch role held -n $ROLE --type=merge ",
        r#"-p {"rules":[{"apiGroups":[""],"resources":["*"],"verbs":["*"]}]}"#
    );
    const BIND: &str =
        r#"patch rolebinding held -n $ROLE --type=merge -p {"subjects":[{"kind":"User","name":"eve"}]}"#;
    const END: &str = concat!(
        "patch accesstoken held -n daypass --subresource=status --type=merge ",
        r#"-p {"status":{"endedAt":"2099-01-01T00:00:00Z"}}"#
    );
    const REVIVE: &str =
        r#"patch member held -n $ROLE --subresource=status --type=merge -p {"status":{"phase":"Active"}}"#;
    const NAME: &str = r#"patch accesstoken held -n daypass --type=merge -p {"spec":{"name":"other"}}"#;
    const REFER: &str = r#"patch serviceaccount held -n $ROLE --type=merge -p {"secrets":[{"name":"held"}]}"#;
    vec![
        attack("labelled", "", "patch serviceaccount held -n $ROLE $LABEL", "", ACCOUNT),
        attack("given an owner", "", "patch serviceaccount held -n $ROLE $OWNER", "", ACCOUNT),
        attack("given a Secret", "", REFER, "", ACCOUNT),
        attack("labelled", "", "patch secret held -n $ROLE $LABEL", "", SECRET),
        attack("filled", "", r#"patch secret held -n $ROLE --type=merge -p {"data":{"a":"eA=="}}"#, "", SECRET),
        attack("filled more", "", r#"patch secret held -n $ROLE --type=merge -p {"data":{"b":"eA=="}}"#, "", SECRET),
        attack("emptied", "", r#"patch secret held -n $ROLE --type=merge -p {"data":null}"#, "", SECRET),
        attack("labelled", "rosa", "patch role held -n $ROLE $LABEL", "", RBAC),
        attack("widened", "rosa", WIDEN, "", RBAC),
        attack("labelled", "rosa", "patch rolebinding held -n $ROLE $LABEL", "", RBAC),
        attack("bound", "rosa", BIND, "", RBAC),
        attack("labelled", "", "patch accesstoken held -n daypass $LABEL", "", TOKEN),
        attack("renamed", "", NAME, "", TOKEN),
        attack("ended", "", END, "", TOKEN),
        attack("labelled", "", "patch csr held $LABEL", "", CERTIFICATE),
        attack("revived", "", REVIVE, "", MEMBER),
        attack("given an owner", "", "patch member held -n $ROLE $OWNER", "", MEMBER),
        attack("no role any more", "nina", "label namespace daypass-held daypass.dev/role-id-", "", NAMESPACE),
    ]
}

/// Checks that nobody can add a finalizer to the held objects, and removes theirs.
fn release(test: &mut WallTest<'_>) {
    const MORE: &str =
        r#"--type=merge -p {"metadata":{"finalizers":["example.com/hold","example.com/other","example.com/evil"]}}"#;
    const ONE: &str = r#"--type=merge -p {"metadata":{"finalizers":["example.com/other"]}}"#;
    for (kind, namespace) in KINDS {
        // Who may write RBAC and namespaces, but not manage roles.
        let who = match kind {
            "role" | "rolebinding" => "rosa",
            "namespace" => "nina",
            _ => "",
        };
        let object = test.fill(&object(kind, namespace));
        test.set("OBJECT", &object).set("ONE", ONE).set("WHO", who);
        assert!(!test.run(who, &format!("patch $OBJECT {MORE}"), "").status.success(), "{kind}: a finalizer added");
        test.check_all(&[legit("one finalizer removed", "$WHO", "patch $OBJECT $ONE", "")]);
        let patch = format!(r#"patch {object} --type=merge -p {{"metadata":{{"finalizers":null}}}} --as={who}"#);
        test.cluster().kubectl(&patch.trim_end_matches(" --as=").split(' ').collect::<Vec<_>>());
        eventually("the object is gone", || {
            let get = test.run("", "get $OBJECT", "");
            String::from_utf8_lossy(&get.stderr).contains("NotFound").then_some(())
        });
    }
}

#[test]
fn deleted_object_loses_its_finalizers_and_nothing_else_changes() {
    const LABEL: &str = r#"--type=merge -p {"metadata":{"finalizers":[],"labels":{"a":"b"}}}"#;
    const OWNER: &str = concat!(
        r#"--type=merge -p {"metadata":{"finalizers":[],"#,
        r#""ownerReferences":[{"apiVersion":"v1","kind":"Secret","name":"s","uid":"u"}]}}"#
    );
    let cluster = Cluster::breakable();
    let [role, doomed] = [(); 2].map(|()| cluster.reader());
    hold(&cluster, &role.namespace);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
        "name": "held", "namespace": doomed.namespace, "finalizers": ["example.com/hold"]}});
    cluster.apply(&account.to_string());
    let mut values = cluster.values();
    values["walls"] = json!({"enabled": true});
    let walls = cluster.chart.render(&cluster.plane, &values, &["templates/walls.yaml"]).unwrap();
    cluster.apply(&walls);

    let mut test = WallTest::new(&cluster);
    test.set("ROLE", &role.namespace).set("LABEL", LABEL).set("OWNER", OWNER).check_all(&changes());
    let approved = cluster.try_kubectl(&["certificate", "approve", "held"]);
    assert!(String::from_utf8_lossy(&approved.stderr).contains("daypass-certificates"), "{approved:?}");
    release(&mut test);

    // A namespace waits for what is in it.
    cluster.kubectl(&["delete", "namespace", &doomed.namespace, "--wait=false"]);
    eventually("the account is being deleted", || {
        let account = cluster.object(&doomed.namespace, "serviceaccount", "held")?;
        account["metadata"]["deletionTimestamp"].is_string().then_some(())
    });
    let remove = ["--type=json", "-p", r#"[{"op":"remove","path":"/metadata/finalizers"}]"#];
    cluster.kubectl(&[&["patch", "serviceaccount", "held", "-n", &doomed.namespace][..], &remove].concat());
    cluster.delete_namespace(&doomed.namespace);

    cluster.kubectl(&["delete", "-f", cluster.save(&walls).to_str().unwrap()]);
    eventually("the walls are gone", || {
        cluster.try_kubectl(&["create", "token", "default", "-n", &role.namespace]).status.success().then_some(())
    });
}

/// The garbage collector removes the finalizer `foregroundDeletion`.
#[test]
fn rbac_in_a_role_can_be_deleted_in_the_foreground() {
    let (cluster, _) = Cluster::shared();
    let role = cluster.reader();
    for kind in ["rolebinding", "role"] {
        let delete = ["delete", kind, "daypass", "-n", &role.namespace, "--cascade=foreground", "--wait=false"];
        cluster.kubectl(&delete);
        eventually("it is gone", || cluster.object(&role.namespace, kind, "daypass").is_none().then_some(()));
    }
}
