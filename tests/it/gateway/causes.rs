//! What ends a kubeconfig, and the reason that its streams then show.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::{Gateways, Guest};
use crate::support::{Http, NewMember, eventually, now};

/// A way to end it.
#[derive(Clone, Copy)]
pub struct Cause {
    pub name: &'static str,
    pub reason: &'static str,
    pub end: fn(&Gateways, &Guest),
}

pub const EARLY: &str = "this membership was ended early";
const ENDED: &str = "this membership ended at 20";

pub const DELETE: Cause = Cause { name: "delete", reason: EARLY, end: delete };
pub const KUBECTL: Cause = Cause { name: "kubectl", reason: EARLY, end: delete_with_kubectl };
pub const EXPIRY: Cause = Cause { name: "expiry", reason: ENDED, end: let_expire };
pub const SHORTER: Cause = Cause { name: "shorter", reason: ENDED, end: shorten };
pub const REPLACED: Cause =
    Cause { name: "replaced", reason: "the member's credential was replaced", end: replace_credential };
pub const REVOKED: Cause = Cause { name: "revoked", reason: "this kubeconfig was revoked", end: revoke_kubeconfig };
pub const ROLE: Cause = Cause { name: "role", reason: EARLY, end: remove_role };
pub const CAUSES: [Cause; 7] = [DELETE, KUBECTL, EXPIRY, SHORTER, REPLACED, REVOKED, ROLE];

fn delete(gateways: &Gateways, guest: &Guest) {
    gateways.first.owner.delete(&guest.member.path("")).expect(204);
}

fn delete_with_kubectl(gateways: &Gateways, guest: &Guest) {
    let namespace = guest.namespace();
    gateways.cluster.kubectl(&["delete", "dpm", guest.member.name(), "-n", &namespace, "--wait=false"]);
}

/// The end is a time to come.
fn let_expire(gateways: &Gateways, guest: &Guest) {
    end_soon(&gateways.first.owner, &guest.member, 3);
}

/// Sets an end so many seconds from now. Takes a later one if it was over before Daypass had checked it.
pub fn end_soon(owner: &Http, member: &NewMember, mut seconds: i64) -> DateTime<Utc> {
    eventually("the end is still to come", || {
        let soon = now() + TimeDelta::seconds(seconds);
        seconds *= 2;
        let status = owner.patch(&member.path(""), &json!({"expiresAt": soon.to_rfc3339()})).status;
        assert!([200, 400, 404].contains(&status), "{status}");
        // It may have come while it was being written.
        (status != 400).then_some(soon)
    })
}

/// The new end is over.
fn shorten(gateways: &Gateways, guest: &Guest) {
    let (name, namespace) = (guest.member.name(), guest.namespace());
    let patch = json!({"spec": {"duration": "1s"}}).to_string();
    gateways.cluster.kubectl(&["patch", "dpm", name, "-n", &namespace, "--type=merge", "-p", &patch]);
}

fn replace_credential(gateways: &Gateways, guest: &Guest) {
    gateways.first.owner.post(&guest.member.path("/credentials"), &json!({})).expect(201);
}

fn revoke_kubeconfig(gateways: &Gateways, guest: &Guest) {
    let jti = guest.member.listed(&gateways.first.owner)[0].clone();
    gateways.first.owner.delete(&guest.member.path(&format!("/kubeconfigs/{jti}"))).expect(204);
}

fn remove_role(gateways: &Gateways, guest: &Guest) {
    gateways.cluster.delete_namespace(&guest.namespace());
}
