//! API Priority and Fairness: whose requests wait in one line.

use crate::support::{DAYPASS, Lab, Stage};

/// Which FlowSchema the API server puts a request into, by what it answers.
fn schema(lab: &Lab, stage: &Stage, who: &str, path: &str) -> String {
    let output = stage.run(who, &format!("get --raw {path} -v=8"), "");
    let log = String::from_utf8_lossy(&output.stderr).to_lowercase();
    let header = log.split("x-kubernetes-pf-flowschema-uid: ").nth(1).unwrap_or_else(|| panic!("{log}"));
    let uid: String = header.chars().take_while(|it| it.is_ascii_hexdigit() || *it == '-').collect();
    let schemas = lab.kubectl(&[
        "get",
        "flowschemas",
        "-o",
        r#"jsonpath={range .items[*]}{.metadata.uid}={.metadata.name}{"\n"}{end}"#,
    ]);
    let line = schemas.lines().find_map(|line| line.strip_prefix(&uid)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("{uid} in {schemas}")).to_owned()
}

#[test]
fn daypass_has_seats_of_its_own_and_some_for_its_lease_and_for_ends_alone() {
    let (stage, daypass) = Stage::shared();
    let lab = stage.lab();
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
        assert_eq!(schema(lab, &stage, who, path), expected, "{who} {path}");
    }
    // Each is there, and has a level.
    for name in ["daypass", "daypass-ends"] {
        let conditions = lab.kubectl(&[
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
