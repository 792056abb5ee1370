//! What the API server refuses by the Member's schema, for every client.

use serde_json::{Value, json};

use crate::support::{Cluster, DAYPASS, Daypass, Launch, NewMember, Role, collection, eventually};

/// A role in which the tests apply Members.
struct Desk {
    cluster: &'static Cluster,
    role: Role,
}

impl Desk {
    fn new() -> Self {
        let (cluster, _) = Cluster::shared();
        Self { cluster, role: cluster.reader() }
    }

    fn manifest(&self, name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "daypass.dev/v1alpha1", "kind": "Member",
            "metadata": {"name": name, "namespace": self.role.namespace}, "spec": spec,
        })
    }

    /// The error of `kubectl apply` for this Member; `None` on success.
    fn apply(&self, name: &str, spec: &Value) -> Option<String> {
        let output = self.cluster.try_apply(&[], &self.manifest(name, spec).to_string());
        (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
    }

    /// Checks that the API server refuses a spec because of a field for a reason, and creates nothing.
    #[track_caller]
    fn refused(&self, spec: &Value, field: &str, reason: &str) {
        let said = self.apply("refused", spec).unwrap_or_else(|| panic!("{spec} was taken"));
        assert!(said.contains(field) && said.contains(reason), "{spec}: {said}");
        assert_eq!(self.cluster.object(&self.role.namespace, "member", "refused"), None);
    }

    /// Checks that the API server accepts a spec and that Daypass provisions the member.
    #[track_caller]
    fn taken(&self, name: &str, spec: &Value) {
        if let Some(said) = self.apply(name, spec) {
            panic!("{spec}: {said}");
        }
        eventually(&format!("{spec}, which the API server took, is provisioned"), || {
            let member = self.cluster.object(&self.role.namespace, "member", name).unwrap();
            (member["status"]["phase"] == "Active").then_some(())
        });
    }

    /// Checks that the API server refuses a change of the Member `held` because the field is immutable.
    #[track_caller]
    fn immutable(&self, patch: &Value, field: &str) {
        let args = ["patch", "member", "held", "-n", &self.role.namespace, "--type=merge", "-p", &patch.to_string()];
        let output = self.cluster.try_kubectl(&args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(&format!("spec.{field} is immutable")), "{patch}: {said}");
    }
}

#[test]
fn duration_is_positive_and_at_most_48h() {
    let desk = Desk::new();
    let form =
        ["30000 weeks", "9999999999999 weeks", "106752 days", "P1D", "-1h", "--1h", "1h1h", "1s1h", "1.5h", "1H"];
    let form = form.into_iter().chain(["1h\n", " 1h", "１h", "3600"]);
    for text in form {
        desk.refused(&json!({"duration": text}), "spec.duration", "should match");
    }
    desk.refused(&json!({"duration": ""}), "spec.duration", "should be at least 2 chars long");
    for text in ["48h1s", "49h", "2880m1s", "172801s", "0s", "0h0m0s"] {
        desk.refused(&json!({"duration": text}), "spec.duration", "must be more than zero and at most 48h");
    }
    // Hours beyond 64 bits of nanoseconds: an overflow must not become a small number.
    for text in ["2562048h", "5124096h", "9999999999999999999h", "18446744073710s"] {
        desk.refused(&json!({"duration": text}), "spec.duration", "");
    }
    desk.refused(&json!({"duration": "0".repeat(20) + "1h"}), "spec.duration", "Too long");
    desk.refused(&json!({"duration": 3}), "spec.duration", "must be of type string");
    desk.refused(&json!({}), "spec.duration", "Required value");
    for (index, text) in ["48h", "1h30m", "900s", "172800s", "2880m", "0048h"].into_iter().enumerate() {
        desk.taken(&format!("taken{index}"), &json!({"duration": text}));
    }
}

#[test]
fn member_name_fits_an_id_and_is_not_default() {
    let desk = Desk::new();
    for name in ["default", &"a".repeat(41), "a.b", "Anna", "-a", "a-", "a_b"] {
        let said = desk.apply(name, &json!({"duration": "1h"})).unwrap_or_else(|| panic!("{name} was taken"));
        assert!(said.contains("metadata.name"), "{name}: {said}");
    }
    for name in ["a", "0", "a-b", &"a".repeat(40)] {
        assert_eq!(desk.apply(name, &json!({"duration": "1h"})), None, "{name}");
    }
}

#[test]
fn hard_end_is_before_the_year_2101() {
    let desk = Desk::new();
    let with = |date: &str| json!({"duration": "1h", "notAfter": date});
    for date in ["2101-01-01T00:00:00Z", "2100-12-31T23:59:59-10:00", "9999-12-31T23:59:59Z"] {
        desk.refused(&with(date), "spec.notAfter", "must be before the year 2101");
    }
    let not_dates = ["tomorrow", "", "2030-01-01", "1893456000", "+10000-01-01T00:00:00Z", "2030-13-01T00:00:00Z"];
    for text in
        not_dates.into_iter().chain(["2030-01-01T00:00:00", "2030-01-01T00:00:00+99:99", "2030-02-30T00:00:00Z"])
    {
        desk.refused(&with(text), "spec.notAfter", "");
    }
    // Daypass must be able to read every date format that the API server accepts.
    let odd = ["2099-01-01T00:00:00,5Z", "2099-01-01T00:00:00x5Z", "2099-01-01t00:00:00z", "2099-01-01T24:00:00Z"];
    for (index, text) in odd.into_iter().enumerate() {
        let name = format!("odd{index}");
        if desk.apply(&name, &with(text)).is_none() {
            desk.taken(&name, &with(text));
        }
    }
    let dates = ["2100-12-31T23:59:59Z", "2099-01-01T00:00:00.123456789+05:30", "2099-01-01T00:00:00.1234567890123Z"];
    for (index, text) in dates.into_iter().enumerate() {
        desk.taken(&format!("taken{index}"), &with(text));
    }
}

#[test]
fn texts_are_bounded_without_hidden_characters() {
    let desk = Desk::new();
    for field in ["username", "description", "createdBy"] {
        for text in ["a\nb", "end\n", "\u{1b}[2J", "\u{85}", "a\u{202E}b", "a\u{2028}b", "a\u{200B}b", "\u{3164}"] {
            desk.refused(&json!({"duration": "1h", (field): text}), &format!("spec.{field}"), "should match");
        }
    }
    for (field, max) in [("username", 255), ("description", 1024), ("createdBy", 1024)] {
        // Kubernetes 1.30 says "longer than", and "characters".
        let reason = max.to_string();
        desk.refused(&json!({"duration": "1h", (field): "ü".repeat(max + 1)}), &format!("spec.{field}"), &reason);
    }
    desk.taken("long", &json!({"duration": "1h", "username": "ü".repeat(255), "description": "ü".repeat(1024)}));
}

#[test]
fn api_and_schema_accept_the_same_texts() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let refused = [
        "a\u{202E}b",
        "a\u{2066}b",
        "\u{61C}ab",
        "ab\u{200F}",
        "a\u{200B}b",
        "a\u{200D}b",
        "a\u{AD}b",
        "\u{FEFF}a",
        "a\u{2060}b",
        "a\u{FE0F}",
        "a\u{E0041}b",
        "\u{115F}",
        "\u{3164}",
        "\u{FFA0}",
        "\u{2800}",
        "a\u{34F}b",
        "\u{E000}",
        "\u{10FFFD}",
        "a\u{2028}b",
        "a\u{2029}b",
        "a\u{85}b",
        "a\tb",
        "ا\u{200C}\u{200C}ب",
        "\u{180E}",
        "a\u{E0100}",
    ];
    let accepted = [
        "Zoë O’Brien-Łukasz",
        "Jose\u{301}",
        "Nguyễn",
        "Ольга",
        "王小明",
        "山田　太郎",
        "葛\u{E0100}城",
        "𠮷野家",
        "김철수",
        "สมชาย",
        "ሰላም",
        "משה",
        "مُحَمَّد",
        "علی\u{200C}رضا",
        "ශ්\u{200D}රියානි",
        "র\u{200D}্যাচেল",
        "അനില്\u{200D}",
        "क्\u{200D}",
        "ᠰᠠᠷᠠ\u{180E}ᠠ",
        "⚠\u{FE0F} urgent",
        "👩\u{200D}💻",
        "❤\u{FE0F}\u{200D}🔥",
        "",
    ];
    for (texts, status) in [(&refused[..], 400), (&accepted[..], 201)] {
        for text in texts {
            let escaped = text.escape_unicode();
            for field in ["username", "description"] {
                let body = json!({"duration": "1", "roleId": role.id, (field): text});
                let answer = daypass.owner.post("/members", &body);
                assert_eq!(answer.status, status, "{field} {escaped}: {}", answer.text);
                if status == 400 {
                    answer.assert_invalid_field(field);
                }
                let member = json!({
                    "apiVersion": "daypass.dev/v1alpha1", "kind": "Member", "metadata": {"name": "text"},
                    "spec": {"duration": "1h", (field): text},
                });
                let path = format!("{}?dryRun=All", collection(&role.namespace, "member"));
                let answer = cluster.api.post(&path, &member);
                let expected = if status == 400 { 422 } else { status };
                assert_eq!(answer.status, expected, "{field} {escaped}: {}", answer.text);
            }
        }
    }
    // RE2 has no class for unassigned characters before Kubernetes 1.35, so only the API refuses them.
    let body = json!({"duration": "1", "roleId": role.id, "username": "\u{378}"});
    daypass.owner.post("/members", &body).problem(400, "DP_ERR_VALIDATION");
}

#[test]
fn objects_older_than_the_rule_for_texts_keep_working_and_end() {
    const HIDDEN: &str = "Ada\u{202E}\u{200B}";
    let cluster = Cluster::exclusive();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let role = cluster.reader();
    let token_body = json!({"name": "old", "expiresInDays": 1, "scopes": ["members:read", "tokens:read"]});
    let token = daypass.owner.post("/tokens", &token_body).expect(201).json();
    let token_name = token["id"].as_str().unwrap().rsplit_once('-').unwrap().0;

    let set_patterns = |pattern: Option<&str>| {
        for (kind, field) in [("members", "username"), ("accesstokens", "name")] {
            let path = format!("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/{field}/pattern");
            let value = pattern.map_or_else(|| pattern_of(kind, field), str::to_owned);
            let patch = json!([{"op": "replace", "path": path, "value": value}]).to_string();
            cluster.kubectl(&["patch", "crd", &format!("{kind}.daypass.dev"), "--type=json", "-p", &patch]);
        }
    };
    let create = |name: &str| {
        let member = json!({
            "apiVersion": "daypass.dev/v1alpha1", "kind": "Member", "metadata": {"name": name},
            "spec": {"duration": "1h", "username": HIDDEN},
        });
        cluster.api.post(&collection(&role.namespace, "member"), &member).status
    };
    set_patterns(Some("^\\P{Cc}*$"));
    daypass.stop();
    eventually("the earlier schema is in force", || (create("old") == 201).then_some(()));
    let rename = json!({"spec": {"name": HIDDEN}}).to_string();
    eventually("the token is renamed as an earlier version allowed", || {
        let patch = ["patch", "accesstoken", token_name, "-n", "daypass", "--type=merge", "-p", &rename];
        cluster.kubectl_with(&cluster.kubeconfig, &patch).status.success().then_some(())
    });
    set_patterns(None);
    eventually("the present schema is in force", || (create("new") == 422).then_some(()));

    // Status, annotations, duration and finalizers of the old objects still change.
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let member = NewMember::with_credential(&daypass, &role, "old");
    assert_eq!(member.body["username"], HIDDEN);
    let kubeconfig = member.kubeconfig(&cluster);
    daypass.owner.patch(&member.path(""), &json!({"duration": "2"})).expect(200);
    daypass.owner.delete(&member.path("")).expect(204);
    assert_eq!(cluster.object(&role.namespace, "member", "old"), None);
    kubeconfig.wait_refused(&cluster);

    let holder = daypass.owner.with_token(token["token"].as_str().unwrap());
    assert_eq!(holder.get("/tokens/self").expect(200).json()["name"], HIDDEN);
    assert_eq!(holder.post("/sessions", &json!({})).expect(201).json()["tokenId"], token["id"]);
    let id = token["id"].as_str().unwrap();
    daypass.owner.post(&format!("/tokens/{id}/rotate"), &json!({"expiresInDays": 1})).expect(200);
    daypass.owner.patch(&format!("/tokens/{id}"), &json!({"name": HIDDEN})).problem(400, "DP_ERR_VALIDATION");
    daypass.owner.delete(&format!("/tokens/{id}")).expect(204);
    daypass.stop();
}

/// The pattern of a field of the spec in the CRD that this version ships.
fn pattern_of(kind: &str, field: &str) -> String {
    let path = format!("{}/crds/{kind}.yaml", env!("CARGO_MANIFEST_DIR"));
    let crd: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"][field]["pattern"].as_str().unwrap().to_owned()
}

#[test]
fn immutable_fields_cannot_be_changed() {
    let desk = Desk::new();
    // An admission policy checks `createdBy`: the caller's own name.
    let whoami = desk.cluster.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
    let fields = [
        ("createdBy", whoami.as_str(), "someone"),
        ("username", "Anna", "Otto"),
        ("description", "Case 0815", "Case 4711"),
        ("notAfter", "2090-01-01T00:00:00Z", "2091-01-01T00:00:00Z"),
    ];
    let mut spec = json!({"duration": "1h"});
    for (field, value, _) in fields {
        spec[field] = value.into();
    }
    desk.taken("held", &spec);
    for (field, _, other) in fields {
        desk.immutable(&json!({"spec": {(field): other}}), field);
        // Removing it is the first half of changing it.
        desk.immutable(&json!({"spec": {(field): null}}), field);
    }
    let all_gone = json!({"spec": {"createdBy": null, "username": null, "description": null, "notAfter": null}});
    desk.immutable(&all_gone, "createdBy");
    let output = desk.cluster.try_kubectl(&["replace", "-f", &file(&desk, &json!({"duration": "2h"}))]);
    assert!(
        String::from_utf8(output.stderr).unwrap().contains("spec.createdBy is immutable"),
        "replace is an update too"
    );
    assert_eq!(
        desk.cluster.object(&desk.role.namespace, "member", "held").unwrap()["spec"],
        spec,
        "the spec is unchanged"
    );

    desk.cluster.patch(&desk.role.namespace, "member", "held", &json!({"spec": {"duration": "48h"}}));
    desk.cluster.patch(&desk.role.namespace, "member", "held", &json!({"spec": {"duration": "2h"}}));
}

#[test]
fn immutable_fields_cannot_be_added_later() {
    let desk = Desk::new();
    desk.taken("held", &json!({"duration": "1h"}));
    for (field, value) in
        [("createdBy", "someone"), ("username", "Otto"), ("description", ""), ("notAfter", "2091-01-01T00:00:00Z")]
    {
        desk.immutable(&json!({"spec": {(field): value}}), field);
    }
}

/// A manifest of the Member `held` with this spec, as a file.
fn file(desk: &Desk, spec: &Value) -> String {
    let file = desk.cluster.fresh_folder("manifest").join("member.json");
    std::fs::write(&file, desk.manifest("held", spec).to_string()).unwrap();
    file.display().to_string()
}

#[test]
fn kubectl_get_shows_role_user_status_and_end() {
    let desk = Desk::new();
    desk.taken("shown", &json!({"duration": "1h", "username": "Talend support team"}));
    let table = desk.cluster.kubectl(&["get", "dpm", "-n", &desk.role.namespace]);
    let columns = |line: &str| {
        line.split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
    };
    let mut lines = table.lines().map(columns);
    assert_eq!(lines.next().unwrap(), ["NAME", "ROLE", "USERNAME", "STATUS", "EXPIRES", "AGE"]);
    let end = desk.cluster.object(&desk.role.namespace, "member", "shown").unwrap()["status"]["expiresAt"].clone();
    let shown = lines.next().unwrap();
    assert_eq!(shown[..5], ["shown", &desk.role.namespace, "Talend support team", "Active", end.as_str().unwrap()]);
}

#[test]
fn status_cannot_be_written_with_the_member() {
    let desk = Desk::new();
    let forged = json!({"phase": "Active", "credentialHash": "0".repeat(64), "expiresAt": "2090-01-01T00:00:00Z"});
    let mut manifest = desk.manifest("forged", &json!({"duration": "1h"}));
    manifest["status"] = forged.clone();
    desk.cluster.apply(&manifest.to_string());
    let read = || desk.cluster.object(&desk.role.namespace, "member", "forged").unwrap()["status"].clone();
    eventually("Daypass has written the status", || (read()["phase"] == "Active").then_some(()));
    assert_eq!(read()["credentialHash"], Value::Null);
    let written = read();
    desk.cluster.patch(&desk.role.namespace, "member", "forged", &json!({"status": forged}));
    assert_eq!(read(), written);
}

#[test]
fn status_holds_at_most_ten_kubeconfigs_in_slots_of_their_own() {
    let desk = Desk::new();
    desk.taken("full", &json!({"duration": "1h"}));
    // kubectl reads before it patches, which Daypass may not.
    let namespace = &desk.role.namespace;
    let right = "--resource=members.daypass.dev/status";
    desk.cluster.kubectl(&["create", "role", "tests", "-n", namespace, "--verb=get", right]);
    let account = "--serviceaccount=daypass:daypass";
    desk.cluster.kubectl(&["create", "rolebinding", "tests", "-n", namespace, "--role=tests", account]);
    let can =
        ["auth", "can-i", "get", "members.daypass.dev", "--subresource=status", "-n", namespace, "--as", DAYPASS];
    eventually("the right is in force", || desk.cluster.try_kubectl(&can).status.success().then_some(()));
    let record = |slot: i64| {
        json!({"slot": slot, "id": "j", "mode": "direct", "secretUid": "k", "credential": "c",
               "issuedAt": "2026-11-23T00:00:00Z", "tokenExpiresAt": "2026-11-23T01:00:00Z"})
    };
    let patch = |records: &[Value]| {
        let patch = json!({"status": {"kubeconfigs": records}}).to_string();
        let args = ["patch", "member", "full", "-n", &desk.role.namespace, "--subresource=status", "--type=merge"];
        let output =
            desk.cluster.try_kubectl(&[&args[..], &["-p", &patch, "--dry-run=server", "--as", DAYPASS]].concat());
        (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
    };
    let all: Vec<Value> = (0..10).map(record).collect();
    assert_eq!(patch(&all), None);
    let mut other = record(0);
    other["mode"] = "other".into();
    let mut long = record(0);
    long["id"] = "a".repeat(65).into();
    for (records, reason) in [
        ([&all[..], &[record(3)]].concat(), "must have at most 10 items"),
        (vec![record(3), record(3)], "Duplicate value"),
        (vec![record(10)], "should be less than or equal to 9"),
        (vec![record(-1)], "should be greater than or equal to 0"),
        (vec![other], "Unsupported value"),
        (vec![long], "Too long: may not be"),
    ] {
        let said = patch(&records).unwrap_or_else(|| panic!("{records:?} was taken"));
        assert!(said.contains(reason), "{reason}: {said}");
    }
}
