//! Objects in whose bookkeeping somebody wrote what decoders refuse. One hostile object hides neither the others nor
//! itself.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::{Created, Daypass, Lab, Launch, Remains, eventually};

/// Entries of `managedFields` that the API server keeps and hands out byte for byte: a time that no client's type
/// holds, objects within objects (serde_json stops at 128, the API server itself at 10,000), bytes that are no text.
fn hostile_entries() -> [Vec<u8>; 4] {
    let entry = |time: &str, fields: &[u8]| {
        let head = format!(
            r#"{{"manager":"hostile","operation":"Update","apiVersion":"VERSION","time":"{time}","fieldsType":"FieldsV1","fieldsV1":"#
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

impl Lab {
    /// Makes this entry the bookkeeping of an object, and checks that the API server kept it.
    #[track_caller]
    fn poison(&self, namespace: &str, kind: &str, name: &str, entry: &[u8]) {
        const MARK: &str = "\"HOSTILE\"";
        let path = path(namespace, kind, name);
        let file = self.fresh_folder("poison").join("object");
        // Somebody else may change the object at the same time.
        eventually("the object is replaced", || {
            let mut object = self.object(namespace, kind, name)?;
            object["metadata"]["managedFields"] = json!(["HOSTILE"]);
            // So that it is a change: the API server ignores one of the bookkeeping alone.
            object["metadata"]["annotations"]["poisoned"] = json!(entry.len().to_string());
            // The API server drops entries of other versions.
            let version = object["apiVersion"].as_str().unwrap().as_bytes();
            let (head, rest) = entry.split_at(entry.windows(7).position(|part| part == b"VERSION").unwrap());
            let text = object.to_string();
            let (before, after) = text.split_once(MARK).unwrap();
            fs::write(&file, [before.as_bytes(), head, version, &rest[7..], after.as_bytes()].concat()).unwrap();
            let replaced = self.try_kubectl(&["replace", "--raw", &path, "-f", file.to_str().unwrap()]);
            replaced.status.success().then_some(())
        });
        let kept = String::from_utf8_lossy(&self.try_kubectl(&["get", "--raw", &path]).stdout).into_owned();
        assert!(kept.contains(r#""manager":"hostile""#), "{kept}");
    }
}

fn path(namespace: &str, kind: &str, name: &str) -> String {
    let group = match kind {
        "namespace" => return format!("/api/v1/namespaces/{name}"),
        "clusterrolebinding" => return format!("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{name}"),
        "serviceaccount" | "secret" => "/api/v1",
        "lease" => "/apis/coordination.k8s.io/v1",
        "member" => "/apis/daypass.dev/v1alpha1",
        other => panic!("{other}"),
    };
    format!("{group}/namespaces/{namespace}/{kind}s/{name}")
}

#[test]
fn a_member_with_hostile_bookkeeping_is_one_like_any_other() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let other = Created::new(&daypass.owner, &role, 1);
    for entry in hostile_entries() {
        let member = Created::new(&daypass.owner, &role, 1);
        lab.poison(&role.namespace, "member", member.name(), &entry);
        let page = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
        assert_eq!(page["total"], 2);
        daypass.owner.get(&member.path("")).expect(200);
        daypass.owner.patch(&member.path(""), &json!({"duration": 2})).expect(200);
        let kubeconfig = member.kubeconfig(lab);
        assert!(kubeconfig.is_accepted(lab));
        daypass.owner.delete(&member.path("")).expect(204);
        assert_eq!(lab.remains(&role, member.name()), Remains::NOTHING);
    }
    daypass.owner.get(&other.path("")).expect(200);
}

#[test]
fn a_short_member_with_hostile_bookkeeping_expires() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    for (number, entry) in hostile_entries().iter().enumerate() {
        let name = format!("short{number}");
        lab.apply_member(&role, &name, &json!({"duration": "1h"}));
        lab.poison(&role.namespace, "member", &name, entry);
        lab.patch(&role.namespace, "member", &name, &json!({"spec": {"duration": "1s"}}));
    }
    for number in 0..hostile_entries().len() {
        let name = format!("short{number}");
        lab.wait_gone(&role, &name);
        assert_eq!(daypass.recorded(&format!("{}.{name}", role.id), "EXPIRED")["actor"]["type"], "DAYPASS");
    }
}

#[test]
fn changes_of_other_members_are_seen_beside_a_hostile_one() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    for (number, entry) in hostile_entries().iter().enumerate() {
        let (hostile, other) = (format!("hostile{number}"), format!("other{number}"));
        lab.apply_member(&role, &hostile, &json!({"duration": "1h"}));
        lab.poison(&role.namespace, "member", &hostile, entry);
        // By the watch: no request made this one.
        lab.apply_member(&role, &other, &json!({"duration": "1h"}));
        let member = Created::with_credential(daypass, &role, &other);
        lab.kubectl(&["delete", "member", member.name(), "-n", &role.namespace]);
        assert_eq!(daypass.recorded(&member.id, "REVOKED")["actor"]["type"], "KUBERNETES");
        lab.wait_gone(&role, &other);
    }
}

#[test]
fn a_namespace_with_hostile_bookkeeping_keeps_nothing_from_being_swept() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    for (number, entry) in hostile_entries().iter().enumerate() {
        let name = format!("hostile-{number}");
        lab.kubectl(&["create", "namespace", &name]);
        lab.poison("", "namespace", &name, entry);
        lab.poison("", "namespace", &role.namespace, entry);
    }
    // The first may have begun before.
    daypass.wait_swept();
    daypass.wait_swept();
    let roles = daypass.owner.get("/members/roles").expect(200).json();
    assert!(roles["items"].as_array().unwrap().iter().any(|item| item["id"] == role.id.as_str()));
    Created::new(&daypass.owner, &role, 1);
}

#[test]
fn what_a_role_can_do_is_known_beside_a_hostile_binding() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    for (number, entry) in hostile_entries().iter().enumerate() {
        let name = format!("hostile-{number}");
        lab.kubectl(&["create", "clusterrolebinding", &name, "--clusterrole=view", "--serviceaccount=default:nobody"]);
        lab.poison("", "clusterrolebinding", &name, entry);
    }
    let roles = daypass.owner.get("/members/roles").expect(200).json();
    let found = roles["items"].as_array().unwrap().iter().find(|item| item["id"] == role.id.as_str()).unwrap();
    assert_eq!((&found["readOnly"], &found["contained"]), (&json!(true), &json!(true)), "{found}");
}

#[test]
fn an_owner_with_hostile_bookkeeping_keeps_its_access_token() {
    let (lab, daypass) = Lab::shared();
    let caller = lab.caller(daypass, &["list"], &["members"], None);
    lab.may_make_tokens(&caller, "generate");
    let body = json!({"name": "CI", "expiresInDays": 1, "scopes": ["members:read"]});
    let token = caller.post("/tokens", &body).expect(201).json();
    let user = caller.username();
    let account = user.rsplit(':').next().unwrap();
    for entry in hostile_entries() {
        lab.poison("default", "serviceaccount", account, &entry);
        caller.with_token(token["token"].as_str().unwrap()).get("/members").expect(200);
    }
}

#[test]
fn daypass_keeps_its_lease_and_its_certificate_whatever_their_bookkeeping() {
    let lab = Lab::private();
    let mut first = Daypass::start(&lab, &Launch::default());
    let role = lab.reader();
    eventually("it leads", || lab.object("daypass", "lease", "daypass").map(drop));
    for entry in hostile_entries() {
        lab.poison("daypass", "secret", "daypass-tls", &entry);
        lab.poison("daypass", "lease", "daypass", &entry);
    }
    let renewed = || lab.object("daypass", "lease", "daypass").map(|lease| lease["spec"]["renewTime"].clone());
    let before = renewed();
    eventually("the Lease is renewed", || (renewed() != before).then_some(()));
    // Another replica reads the same certificate, takes the Lease over and ends members.
    first.kill();
    lab.apply_member(&role, "short", &json!({"duration": "1s"}));
    let second = Daypass::start(&lab, &Launch::default());
    lab.wait_gone(&role, "short");
    second.recorded(&format!("{}.short", role.id), "EXPIRED");
}

#[test]
fn a_list_of_large_objects_is_read_in_pages() {
    let lab = Lab::private();
    let daypass = Daypass::start(&lab, &Launch::default());
    let role = lab.reader();
    // As large as annotations may be, on each: 20 MiB in all, several times what is read at once.
    let annotation = "x".repeat(255 * 1024);
    for number in 0..80 {
        let member = json!({
            "apiVersion": "daypass.dev/v1alpha1", "kind": "Member",
            "metadata": {"name": format!("large{number}"), "namespace": role.namespace, "annotations": {"large": annotation}},
            "spec": {"duration": "1h"},
        });
        let file = lab.fresh_folder("member").join("member.json");
        fs::write(&file, member.to_string()).unwrap();
        lab.kubectl(&["create", "-f", file.to_str().unwrap()]);
    }
    // The first may have begun before.
    daypass.wait_swept();
    daypass.wait_swept();
    let page = daypass.owner.get("/members?limit=1000").expect(200).json();
    assert_eq!(page["total"], 80);
    assert!(page["items"].as_array().unwrap().iter().all(|item| item["status"] == "ACTIVE"), "{page}");
    // A debug build; the chart's limit is for a release build, which needs less.
    let peak = peak_memory_mib(daypass.pid());
    assert!(peak < 256, "{peak} MiB");
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
