//! Schemathesis sends requests made from the OpenAPI document and checks the answers against it.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::{Cluster, Daypass, NewMember};

#[test]
fn schemathesis_finds_only_documented_answers() {
    let Some(schemathesis) = std::env::var_os("SCHEMATHESIS") else {
        panic!("the environment variable SCHEMATHESIS must name the program: use `make test`, which installs it");
    };
    let (cluster, _) = Cluster::shared();
    // Its own: other tests fill the places for requests of the shared one.
    let daypass = &Daypass::with_args(cluster, &[]);
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    cluster.apply(&cluster.render_role("schemathesis", &json!({"rules": rules})));
    let role = cluster.wait_role("schemathesis");
    // A caller with rights in that role only, since schemathesis deletes what it finds.
    let verbs = ["create", "list", "get", "update", "delete"];
    let resources = ["members", "members/credentials", "members/kubeconfigs"];
    let caller = cluster.caller(daypass, &verbs, &resources, Some(&role));
    cluster.may_make_tokens(&caller, "generate");
    let member = NewMember::new(&daypass.owner, &role, 48);

    // Not the caller's own token, since schemathesis rotates and deletes those it finds.
    let body = json!({"name": "schemathesis", "expiresInDays": 1, "scopes": ["members:read"]});
    let token = daypass.owner.post("/tokens", &body).expect(201).json();

    let folder = cluster.fresh_folder("schemathesis");
    std::fs::write(folder.join("ca.pem"), cluster.serving_certificate()).unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis/schemathesis.toml");
    let mut command = Command::new(schemathesis);
    command.arg("--config-file").arg(config).args(["--no-color", "run"]).arg(format!("{}/openapi.json", daypass.url));
    command.current_dir(&folder).env("DAYPASS_BASE_URL", format!("{}/processing/data-planes/dp-1", daypass.url));
    command.env("DAYPASS_CA", folder.join("ca.pem")).env("DAYPASS_TOKEN", caller.token());
    command.env("DAYPASS_MEMBER", &member.id).env("DAYPASS_PASSWORD", &member.password);
    command.env("DAYPASS_ACCESS_TOKEN", token["token"].as_str().unwrap());
    let output = command.output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("Tested: 22"), "{report}");
}
