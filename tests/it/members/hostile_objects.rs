//! Objects with `managedFields` that decoders refuse. A hostile object hides neither itself nor
//! others.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::{Cluster, Daypass, Launch, Leftovers, NewMember, collection, eventually};

/// Entries of `managedFields` that the API server returns byte for byte: a time out of range, deep nesting (serde_json
/// stops at 128, the API server at 10,000), bytes that are not UTF-8.
fn hostile_entries() -> [Vec<u8>; 4] {
    let entry = |time: &str, fields: &[u8]| {
        let head = format!(
            r#"{{"manager":"hostile","operation":"Update","apiVersion":"VERSION","time":"{time}",
                "fieldsType":"FieldsV1","fieldsV1":"#
        );
        [head.as_bytes(), fields, b"}"].concat()
    };
    let nested = |depth: usize| [r#"{"f:a":"#.repeat(depth), "{}".to_owned(), "}".repeat(depth)].concat();
    let usual = "2026-11-23T00:00:00Z";
    [
        entry("9999-12-31T23:59:59Z", br#"{"f:a":{}}"#),
        entry(usual, nested(150).as_bytes()),
        entry(usual, nested(9000).as_bytes()),
        entry(usual, b"{\"f:\xff\xfe\":{}}"),
    ]
}

impl Cluster {
    /// Writes this entry into an object's `managedFields` and checks that the API server kept it.
    #[track_caller]
    fn poison(&self, namespace: &str, kind: &str, name: &str, entry: &[u8]) {
        const MARK: &str = "\"HOSTILE\"";
        let path = format!("{}/{name}", collection(namespace, kind));
        // Another writer may cause a conflict.
        eventually("the object is replaced", || {
            let mut object = self.object(namespace, kind, name)?;
            object["metadata"]["managedFields"] = json!(["HOSTILE"]);
            // The API server ignores changes of `managedFields` alone.
            object["metadata"]["annotations"]["poisoned"] = json!(entry.len().to_string());
            // The API server drops entries of other versions.
            let version = object["apiVersion"].as_str().unwrap().as_bytes();
            let (head, rest) = entry.split_at(entry.windows(7).position(|part| part == b"VERSION").unwrap());
            let text = object.to_string();
            let (before, after) = text.split_once(MARK).unwrap();
            let bytes = [before.as_bytes(), head, version, &rest[7..], after.as_bytes()].concat();
            // Without a process: a replica writes its Lease every two seconds.
            (self.api.put(&path, bytes).status == 200).then_some(())
        });
        let kept = String::from_utf8_lossy(&self.try_kubectl(&["get", "--raw", &path]).stdout).into_owned();
        assert!(kept.contains(r#""manager":"hostile""#), "{kept}");
    }
}

#[test]
fn member_with_hostile_managed_fields_works() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let other = NewMember::new(&daypass.owner, &role, 1);
    for entry in hostile_entries() {
        let member = NewMember::new(&daypass.owner, &role, 1);
        cluster.poison(&role.namespace, "member", member.name(), &entry);
        let page = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
        assert_eq!(page["total"], 2);
        daypass.owner.get(&member.path("")).expect(200);
        daypass.owner.patch(&member.path(""), &json!({"duration": 2})).expect(200);
        let kubeconfig = member.kubeconfig(cluster);
        assert!(kubeconfig.is_accepted(cluster));
        daypass.owner.delete(&member.path("")).expect(204);
        assert_eq!(cluster.leftovers(&role, member.name()), Leftovers::NOTHING);
    }
    daypass.owner.get(&other.path("")).expect(200);
}

#[test]
fn short_member_with_hostile_managed_fields_expires() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    for (number, entry) in hostile_entries().iter().enumerate() {
        let name = format!("short{number}");
        cluster.apply_member(&role, &name, &json!({"duration": "1h"}));
        cluster.poison(&role.namespace, "member", &name, entry);
        cluster.patch(&role.namespace, "member", &name, &json!({"spec": {"duration": "1s"}}));
    }
    for number in 0..hostile_entries().len() {
        let name = format!("short{number}");
        cluster.wait_gone(&role, &name);
        assert_eq!(daypass.wait_event(&format!("{}.{name}", role.id), "EXPIRED")["actor"]["type"], "DAYPASS");
    }
}

#[test]
fn hostile_member_does_not_hide_changes_of_others() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    for (number, entry) in hostile_entries().iter().enumerate() {
        let (hostile, other) = (format!("hostile{number}"), format!("other{number}"));
        cluster.apply_member(&role, &hostile, &json!({"duration": "1h"}));
        cluster.poison(&role.namespace, "member", &hostile, entry);
        // Daypass learns of this one by its watch.
        cluster.apply_member(&role, &other, &json!({"duration": "1h"}));
        let member = NewMember::with_credential(daypass, &role, &other);
        cluster.kubectl(&["delete", "member", member.name(), "-n", &role.namespace]);
        assert_eq!(daypass.wait_event(&member.id, "REVOKED")["actor"]["type"], "KUBERNETES");
        cluster.wait_gone(&role, &other);
    }
}

#[test]
fn hostile_namespace_does_not_stop_the_sweep() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    for (number, entry) in hostile_entries().iter().enumerate() {
        let name = format!("hostile-{number}");
        cluster.kubectl(&["create", "namespace", &name]);
        cluster.poison("", "namespace", &name, entry);
        cluster.poison("", "namespace", &role.namespace, entry);
    }
    // The first sweep may have begun before.
    daypass.wait_swept();
    daypass.wait_swept();
    daypass.listed_role(&role.id);
    NewMember::new(&daypass.owner, &role, 1);
}

#[test]
fn hostile_binding_does_not_hide_the_roles_rights() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    for (number, entry) in hostile_entries().iter().enumerate() {
        let name = format!("hostile-{number}");
        cluster.kubectl(&[
            "create",
            "clusterrolebinding",
            &name,
            "--clusterrole=view",
            "--serviceaccount=default:nobody",
        ]);
        cluster.poison("", "clusterrolebinding", &name, entry);
    }
    eventually("its rights are known", || {
        let found = daypass.listed_role(&role.id);
        (found["readOnly"] == true && found["contained"] == true).then_some(())
    });
}

#[test]
fn token_of_hostile_service_account_works() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.caller(daypass, &["list"], &["members"], None);
    cluster.may_make_tokens(&caller, "generate");
    let body = json!({"name": "CI", "expiresInDays": 1, "scopes": ["members:read"]});
    let token = caller.post("/tokens", &body).expect(201).json();
    let user = caller.username();
    let account = user.rsplit(':').next().unwrap();
    for entry in hostile_entries() {
        cluster.poison("default", "serviceaccount", account, &entry);
        caller.with_token(token["token"].as_str().unwrap()).get("/members").expect(200);
    }
}

#[test]
fn hostile_lease_and_certificate_secret_are_usable() {
    let cluster = Cluster::exclusive();
    let mut first = Daypass::start(&cluster, &Launch::default());
    let role = cluster.reader();
    eventually("Daypass leads", || cluster.object("daypass", "lease", "daypass").map(drop));
    for entry in hostile_entries() {
        cluster.poison("daypass", "secret", "daypass-tls", &entry);
        cluster.poison("daypass", "lease", "daypass", &entry);
    }
    let renewed = || cluster.object("daypass", "lease", "daypass").map(|lease| lease["spec"]["renewTime"].clone());
    let before = renewed();
    eventually("the Lease is renewed", || (renewed() != before).then_some(()));
    // Another replica reads the same certificate, takes the Lease over and ends members.
    first.kill();
    cluster.apply_member(&role, "short", &json!({"duration": "1s"}));
    let mut second = Daypass::start(&cluster, &Launch::default());
    cluster.wait_gone(&role, "short");
    second.wait_event(&format!("{}.short", role.id), "EXPIRED");
    second.stop();
    // The next Daypass makes both again.
    cluster.kubectl(&["delete", "lease/daypass", "secret/daypass-tls", "-n", "daypass"]);
}

#[test]
fn large_objects_are_listed_in_pages() {
    // The policies refuse such Members.
    let cluster = Cluster::own_without_walls();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let role = cluster.reader();
    // The largest annotations that Kubernetes allows on each: 20 MiB in total, several pages.
    let annotation = "x".repeat(255 * 1024);
    for number in 0..80 {
        let member = json!({
            "apiVersion": "daypass.dev/v1alpha1", "kind": "Member",
            "metadata": {
                "name": format!("large{number}"), "namespace": role.namespace, "annotations": {"large": annotation},
            },
            "spec": {"duration": "1h"},
        });
        cluster.create(&member);
    }
    // The first sweep may have begun before.
    daypass.wait_swept();
    daypass.wait_swept();
    eventually("all are active", || {
        let page = daypass.owner.get(&format!("/members?limit=1000&roleId={}", role.id)).expect(200).json();
        assert_eq!(page["total"], 80);
        page["items"].as_array().unwrap().iter().all(|item| item["status"] == "ACTIVE").then_some(())
    });
    // This is a debug build. A release build needs less than the chart's limit.
    let peak = peak_memory_mib(daypass.pid());
    assert!(peak < 256, "{peak} MiB");
    daypass.stop();
}

impl Daypass {
    /// Waits for the end of one more sweep.
    #[track_caller]
    fn wait_swept(&self) {
        let before = self.metric("daypass_sweeps_total");
        eventually("another sweep", || (self.metric("daypass_sweeps_total") > before).then_some(()));
    }
}

/// The most memory that a process has had resident (proc(5), `VmHWM`).
fn peak_memory_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() / 1024
}
