//! API Priority and Fairness: which FlowSchema and level Daypass's requests get.

use crate::support::{Cluster, DAYPASS, WallTest};

/// Daypass makes it when the gateway is used.
const HEARTBEAT: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member,
    metadata: {name: heartbeat, namespace: daypass}, spec: {duration: 1s}}";

/// The FlowSchema that the API server chose for kubectl's last request, by its response header.
fn schema(cluster: &Cluster, test: &WallTest, who: &str, args: &str) -> String {
    let output = test.run(who, &format!("{args} -v=8"), "");
    let log = String::from_utf8_lossy(&output.stderr).to_lowercase();
    let header = log.split("x-kubernetes-pf-flowschema-uid: ").skip(1).last().unwrap_or_else(|| panic!("{log}"));
    let uid: String = header.chars().take_while(|it| it.is_ascii_hexdigit() || *it == '-').collect();
    let schemas = cluster.kubectl(&[
        "get",
        "flowschemas",
        "-o",
        r#"jsonpath={range .items[*]}{.metadata.uid}={.metadata.name}{"\n"}{end}"#,
    ]);
    let line = schemas.lines().find_map(|line| line.strip_prefix(&uid)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("{uid} in {schemas}")).to_owned()
}

#[test]
fn flow_schemas_reserve_seats_for_daypass_and_its_lease() {
    let (test, daypass) = WallTest::shared();
    let cluster = test.cluster();
    let member = "system:serviceaccount:daypass-projects-view:m";
    for (who, path, expected) in [
        (DAYPASS, "/apis/coordination.k8s.io/v1/namespaces/daypass/leases/daypass", "daypass-ends"),
        (DAYPASS, "/apis/daypass.dev/v1alpha1/members?watch=1&timeoutSeconds=1", "daypass-ends"),
        (DAYPASS, "/apis/daypass.dev/v1alpha1/members", "daypass"),
        (DAYPASS, "/api/v1/namespaces/daypass-projects-view", "daypass"),
        (DAYPASS, "/.well-known/openid-configuration", "daypass"),
        (member, "/api/v1/namespaces/default/pods", "service-accounts"),
        (member, "/apis/coordination.k8s.io/v1/namespaces/daypass/leases/daypass", "service-accounts"),
        ("system:serviceaccount:daypass:daypass-test", "/version", "service-accounts"),
    ] {
        assert_eq!(schema(cluster, &test, who, &format!("get --raw {path}")), expected, "{who} {path}");
    }
    cluster.try_apply(&[&format!("--as={DAYPASS}"), "--validate=false"], HEARTBEAT);
    let beat = "annotate member heartbeat -n daypass --overwrite daypass.dev/beat=x/1";
    assert_eq!(schema(cluster, &test, DAYPASS, beat), "daypass-ends");
    // Both FlowSchemas have an existing priority level.
    for name in ["daypass", "daypass-ends"] {
        let conditions = cluster.kubectl(&[
            "get",
            "flowschema",
            name,
            "-o",
            r#"jsonpath={.status.conditions[?(@.type=="Dangling")].status}"#,
        ]);
        assert_eq!(conditions, "False", "{name}");
    }
    assert!(daypass.probe("/readyz").0 == 200);
}
