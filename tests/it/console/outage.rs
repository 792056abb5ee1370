//! The console while the API server is away.

use super::deeds::Deeds;
use super::{context, run};
use crate::support::{Cluster, Daypass, replica};

#[test]
fn page_says_that_the_api_server_is_away() {
    let cluster = Cluster::breakable();
    let daypass = Daypass::start(&cluster, &replica("a"));
    let role = cluster.reader();
    let context = context(&cluster, &daypass, &role, &daypass.owner);
    run("outage.mjs", &context, &Deeds { cluster: &cluster, daypass: &daypass, role: &role });
}
