//! What a member cannot do to the cluster, whatever its role allows: it could stop Daypass from ending members or
//! let somebody in again.

use serde_json::json;

use crate::support::{Cluster, WallTest, attack, legit};

/// Members of a role that may do everything and of a role that writes all cluster-wide RBAC.
const WILD: &str = "system:serviceaccount:$ROLE:w1";
const RULER: &str = "system:serviceaccount:$RULERS:r1";

fn wild(plain: &str) -> WallTest<'static> {
    let (mut test, _) = WallTest::shared();
    let role = test.cluster().role(json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]));
    test.plain(plain).set("ROLE", &role.namespace);
    test.wait_can(WILD, "create secrets");
    test
}

#[test]
fn member_cannot_change_cluster_wide_rbac() {
    const API: &str = "/apis/rbac.authorization.k8s.io/v1";
    const ROLES: (&str, &str) = ("daypass-member-persistence", "a member may not create or change clusterroles,");
    const BINDINGS: (&str, &str) =
        ("daypass-member-persistence", "a member may not create or change clusterrolebindings,");
    const NO_ROLE: (&str, &str) = ("daypass-member-persistence", "a member may not delete clusterroles,");
    const NO_BINDING: (&str, &str) = ("daypass-member-persistence", "a member may not delete clusterrolebindings,");
    let (mut test, _) = WallTest::shared();
    let rules = json!([{
        "apiGroups": ["rbac.authorization.k8s.io"], "verbs": ["*"],
        "resources": ["clusterroles", "clusterrolebindings"],
    }]);
    let role = test.cluster().role(rules);
    test.set("ROLE", &role.namespace).set("RULERS", &role.namespace).set("ID", &role.id).set("API", API);
    test.wait_can(RULER, "delete clusterrolebindings");
    test.check_all(&[
        attack("Daypass's binding deleted", RULER, "delete clusterrolebinding daypass", "", NO_BINDING),
        attack("Daypass's role deleted", RULER, "delete clusterrole daypass", "", NO_ROLE),
        attack("its managers' deleted", RULER, "delete clusterrolebinding daypass-engines-manage", "", NO_BINDING),
        attack("its own role's deleted", RULER, "delete clusterrolebinding daypass-role-$ID", "", NO_BINDING),
        attack("all bindings deleted", RULER, "delete --raw $API/clusterrolebindings?dryRun=All", "", NO_BINDING),
        attack(
            "Daypass's binding deleted among others",
            RULER,
            "delete --raw $API/clusterrolebindings?labelSelector=app.kubernetes.io/name%3Ddaypass&dryRun=All",
            "",
            NO_BINDING,
        ),
        attack("all roles deleted", RULER, "delete --raw $API/clusterroles?dryRun=All", "", NO_ROLE),
        attack(
            "in the foreground",
            RULER,
            "delete --raw $API/clusterrolebindings/daypass?propagationPolicy=Foreground&dryRun=All",
            "",
            NO_BINDING,
        ),
        attack(
            "Daypass's role emptied",
            RULER,
            r#"patch clusterrole daypass --type=merge -p {"rules":[]}"#,
            "",
            ROLES,
        ),
        attack(
            "Daypass taken out of its binding",
            RULER,
            r#"patch clusterrolebinding daypass --type=merge -p {"subjects":[]}"#,
            "",
            BINDINGS,
        ),
        attack("a role", RULER, "create clusterrole r --verb=get --resource=pods", "", ROLES),
        attack("a binding", RULER, "create clusterrolebinding r --clusterrole=view --user=x", "", BINDINGS),
        legit("somebody else deletes one", "rosa", "delete clusterrolebinding daypass-engines-manage", ""),
        legit("a read", RULER, "get clusterrolebindings", ""),
    ]);
}

#[test]
fn member_cannot_change_flow_control() {
    const LEVELS: (&str, &str) =
        ("daypass-member-persistence", "a member may not create or change prioritylevelconfigurations,");
    const SCHEMAS: (&str, &str) = ("daypass-member-persistence", "a member may not create or change flowschemas,");
    const NO_LEVEL: (&str, &str) =
        ("daypass-member-persistence", "a member may not delete prioritylevelconfigurations,");
    const NO_SCHEMA: (&str, &str) = ("daypass-member-persistence", "a member may not delete flowschemas,");
    const LEVEL: &str =
        "{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: PriorityLevelConfiguration, metadata: {name: greedy},
        spec: {type: Limited, limited: {nominalConcurrencyShares: 1, limitResponse: {type: Reject}}}}";
    const SCHEMA: &str = "{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: FlowSchema, metadata: {name: greedy},
        spec: {matchingPrecedence: 50, priorityLevelConfiguration: {name: catch-all}, rules: [{
        subjects: [{kind: ServiceAccount, serviceAccount: {namespace: daypass, name: daypass}}],
        resourceRules: [{verbs: ['*'], apiGroups: ['*'], resources: ['*'],
        namespaces: ['*'], clusterScope: true}]}]}}";
    wild("walls-wild-flow").check_all(&[
        attack("a level", WILD, "create -f -", LEVEL, LEVELS),
        attack("Daypass's requests sent elsewhere", WILD, "create -f -", SCHEMA, SCHEMAS),
        attack(
            "a level of the cluster narrowed",
            WILD,
            concat!(
                "patch prioritylevelconfiguration workload-low --type=merge ",
                r#"-p {"spec":{"limited":{"nominalConcurrencyShares":1}}}"#
            ),
            "",
            LEVELS,
        ),
        attack("a level deleted", WILD, "delete prioritylevelconfiguration workload-low", "", NO_LEVEL),
        attack("a schema deleted", WILD, "delete flowschema service-accounts", "", NO_SCHEMA),
        attack(
            "all deleted",
            WILD,
            "delete --raw /apis/flowcontrol.apiserver.k8s.io/v1/flowschemas?dryRun=All",
            "",
            NO_SCHEMA,
        ),
        legit("somebody else, a level", "", "create -f -", LEVEL),
        legit("somebody else, a schema", "", "create -f -", SCHEMA),
    ]);
}

#[test]
fn member_cannot_change_cluster_configuration() {
    const WRITES: (&str, &str) =
        ("daypass-member-persistence", "a member may not create or change configmaps of the cluster itself,");
    const DELETES: (&str, &str) =
        ("daypass-member-persistence", "a member may not delete configmaps of the cluster itself,");
    const TRUSTED: &str = "configmap extension-apiserver-authentication -n kube-system";
    const AWS: &str =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: aws-auth, namespace: kube-system}, data: {mapUsers: x}}";
    let mut test = wild("walls-wild-config");
    test.set("TRUSTED", TRUSTED).check_all(&[
        attack(
            "the trusted CAs",
            WILD,
            r#"patch $TRUSTED --type=merge -p {"data":{"client-ca-file":"x"}}"#,
            "",
            WRITES,
        ),
        attack("… deleted", WILD, "delete $TRUSTED", "", DELETES),
        attack(
            "… with all others",
            WILD,
            "delete --raw /api/v1/namespaces/kube-system/configmaps?dryRun=All",
            "",
            DELETES,
        ),
        attack("the aws-auth ConfigMap", WILD, "create -f -", AWS, WRITES),
        attack("cluster-info", WILD, "create configmap cluster-info -n kube-public", "", WRITES),
        legit("somebody else", "", "create -f -", AWS),
        legit("a ConfigMap elsewhere", WILD, "create configmap aws-auth -n $PLAIN", ""),
        legit("a read", WILD, "get $TRUSTED", ""),
    ]);
}

/// A StatefulSet makes pods from the ControllerRevision named in its status.
#[test]
fn member_cannot_change_controller_revisions() {
    const WRITES: (&str, &str) =
        ("daypass-member-persistence", "a member may not create or change controllerrevisions,");
    const DELETES: (&str, &str) = ("daypass-member-persistence", "a member may not delete controllerrevisions,");
    const REVISION: &str =
        "{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: web-1, namespace: $PLAIN}, revision: 1,
        data: {spec: {template: {}}}}";
    let test = wild("walls-wild-revisions");
    test.cluster().apply(&test.fill(REVISION).replace("web-1", "web-0"));
    test.check_all(&[
        attack("a revision", WILD, "create -f -", REVISION, WRITES),
        attack("a revision adopted", WILD, "label controllerrevision web-0 -n $PLAIN a=b", "", WRITES),
        attack("a revision deleted", WILD, "delete controllerrevision web-0 -n $PLAIN", "", DELETES),
        legit("somebody else", "", "create -f -", REVISION),
        legit("somebody else deletes one", "", "delete controllerrevision web-0 -n $PLAIN", ""),
    ]);
}

/// The API server enforces the policies. No Daypass runs here.
#[test]
fn walls_hold_while_no_daypass_runs() {
    const DAYPASS: &str = "system:serviceaccount:daypass:daypass";
    const TOKEN: &str =
        "{apiVersion: daypass.dev/v1alpha1, kind: AccessToken, metadata: {name: forged-7, namespace: daypass},
        spec: {id: forged-7-aaaaaa, name: forged, owner: {username: 'system:serviceaccount:default:x'}, createdBy: x,
        scopes: [members:write], expiresAt: 2099-01-01T00:00:00Z, tokenHash: $HASH, identity: i}}";
    const MEMBER: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, metadata: {name: m, namespace: $ROLE},
        spec: {duration: 1h, createdBy: somebody}}";
    const SECRET: &str = "{apiVersion: v1, kind: Secret, metadata: {name: evil, namespace: $ROLE}}";
    const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: $ROLE},
        spec: {securityContext: {runAsNonRoot: true,
        runAsUser: 1, seccompProfile: {type: RuntimeDefault}}, containers: [{name: c, image: x, securityContext:
        {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}}";
    const LEASE: &str =
        "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: other, namespace: daypass}}";
    let cluster = Cluster::exclusive();
    let mut test = WallTest::new(&cluster);
    let role = cluster.role(json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]));
    test.set("ROLE", &role.namespace).set("HASH", &"a".repeat(64));
    test.wait_can(WILD, "create secrets");
    let request = super::certificates::request("walls-down", &[("system:serviceaccounts:daypass-x", false)]);
    test.set("REQUEST", &request);
    // One of each policy.
    test.check_all(&[
        attack(
            "an access token",
            "",
            "create -f -",
            TOKEN,
            ("daypass-accesstokens", "only Daypass writes AccessTokens"),
        ),
        attack(
            "a certificate",
            "",
            "create -f -",
            "$REQUEST",
            ("daypass-certificates", "a certificate must not name"),
        ),
        attack(
            "Daypass's rights deleted by a member",
            WILD,
            "delete clusterrolebinding daypass",
            "",
            ("daypass-member-persistence", "a member may not delete clusterrolebindings,"),
        ),
        attack(
            "Daypass stopped by a member",
            WILD,
            "scale deployment daypass -n daypass --replicas=1",
            "",
            ("daypass-member-reach", ""),
        ),
        attack("a Member in another's name", "mia", "create -f -", MEMBER, ("daypass-members", "spec.createdBy")),
        attack("a role", "nina", "create namespace daypass-evil", "", ("daypass-namespaces", "")),
        attack("another Lease", DAYPASS, "create -f -", LEASE, ("daypass-own-namespace", "")),
        attack("a pod", "", "create -f -", POD, ("daypass-role-pods", "")),
        attack("Daypass's binding", "adam", "delete rolebinding daypass -n $ROLE", "", ("daypass-role-rbac", "")),
        attack("a Secret", "eve", "create -f -", SECRET, ("daypass-role-secrets", "")),
        attack("an account", "eve", "create serviceaccount evil -n $ROLE", "", ("daypass-role-serviceaccounts", "")),
        attack("a token", "eve", "create token default -n $ROLE", "", ("daypass-role-tokens", "")),
    ]);
    cluster.kubectl(&["delete", "namespace", &role.namespace]);
}
