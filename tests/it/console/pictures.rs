//! The README's pictures.

use std::path::Path;

use serde_json::json;

use super::deeds::Deeds;
use super::{context, run};
use crate::support::{Cluster, Daypass};

#[test]
#[ignore = "rewrites docs/pictures: use `make pictures`"]
fn pictures_of_the_readme_are_taken() {
    // Its list has no other tests' members, and the roles are those that the chart ships.
    let cluster = Cluster::own();
    let daypass = Daypass::with_args(&cluster, &["--kubeconfig-mode=gateway"]);
    let role = cluster.wait_role("storage-view");
    let mut context = context(&cluster, &daypass, &role, &daypass.owner);
    context["folder"] = json!(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures"));
    run("pictures.mjs", &context, &Deeds { cluster: &cluster, daypass: &daypass, role: &role });
}
