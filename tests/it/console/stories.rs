//! What people do on the pages, and what pages of others may not.

use serde_json::{Value, json};

use super::deeds::Deeds;
use super::{context, owner, run};
use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Cluster, Daypass};

/// Runs a script with an owner of a role of its own on the shared cluster, and an access token of the same owner.
#[track_caller]
fn run_shared(script: &str) {
    let (cluster, daypass) = Cluster::shared();
    run_with(script, cluster, daypass);
}

#[track_caller]
fn run_with(script: &str, cluster: &Cluster, daypass: &Daypass) {
    let role = cluster.reader();
    let owner = owner(cluster, daypass, &role);
    let pat = AccessToken::new(&owner, &SCOPES);
    let mut context = context(cluster, daypass, &role, &owner);
    context["token"] = json!({"id": pat.id, "secret": pat.secret});
    run(script, &context, &Deeds { cluster, daypass, role: &role });
}

#[test]
fn owner_grants_hands_over_watches_and_ends_access() {
    run_shared("owner.mjs");
}

#[test]
fn engineer_logs_on_downloads_uses_and_ends_access() {
    run_shared("engineer.mjs");
}

#[test]
fn access_token_is_generated_shown_once_rotated_and_revoked() {
    let (cluster, _) = Cluster::shared();
    let role = cluster.reader();
    let without = Daypass::with_args(cluster, &["--auth-methods=kubernetes"]);
    let daypass = Cluster::shared().1;
    let owner = owner(cluster, daypass, &role);
    let pat = AccessToken::new(&owner, &SCOPES);
    let mut context = context(cluster, daypass, &role, &owner);
    context["token"] = json!({"id": pat.id, "secret": pat.secret});
    context["withoutTokens"] = json!(without.url);
    run("tokens.mjs", &context, &Deeds { cluster, daypass, role: &role });
}

#[test]
fn form_that_is_sent_again_or_too_late_does_nothing_twice_and_loses_nothing() {
    run_shared("forms.mjs");
}

#[test]
fn every_page_is_accessible_and_counts_down_by_the_servers_clock() {
    run_shared("accessibility.mjs");
}

#[test]
fn page_of_another_site_does_nothing_and_markup_stays_text() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let owner = owner(cluster, daypass, &role);
    let pat = AccessToken::new(&owner, &SCOPES);
    let mut context = context(cluster, daypass, &role, &owner);
    context["token"] = json!({"id": pat.id, "secret": pat.secret});
    // Another port of the same host is another origin of the same site. It serves with Daypass's certificate.
    let secret = cluster.object("daypass", "secret", "daypass-tls").unwrap();
    context["key"] = secret["data"]["tls.key"].clone();
    run("attacks.mjs", &context, &Deeds { cluster, daypass, role: &role });
}

#[test]
fn refusal_is_a_page_that_says_why() {
    let (cluster, _) = Cluster::shared();
    // A wrong password is refused as such, the next for their number. It forgets one in a minute.
    let strict = Daypass::with_args(cluster, &["--max-refused-credentials=1"]);
    let role = cluster.reader();
    let daypass = Cluster::shared().1;
    let owner = owner(cluster, daypass, &role);
    let pat = AccessToken::new(&owner, &SCOPES);
    let mut context = context(cluster, daypass, &role, &owner);
    context["token"] = json!({"id": pat.id, "secret": pat.secret});
    context["strict"] = json!(strict.url);
    let lister: Value = cluster.caller(daypass, &["list", "get"], &["members"], Some(&role)).token().into();
    context["lister"] = lister;
    run("refusals.mjs", &context, &Deeds { cluster, daypass, role: &role });
}

#[test]
fn page_tells_of_ten_kubeconfigs_and_of_a_role_that_was_widened() {
    run_shared("limits.mjs");
}
