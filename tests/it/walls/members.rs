//! The policy daypass-members: who writes what in Members.

use serde_json::json;

use crate::support::{DAYPASS, NewMember, WallTest, attack, legit};

/// A role with the Member `$MEMBER` in it.
fn with_member(plain: &str) -> WallTest<'static> {
    let (mut test, daypass) = WallTest::shared();
    let role = test.cluster().reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    test.plain(plain).set("ROLE", &role.namespace).set("MEMBER", member.name());
    test
}

#[test]
fn members_are_created_only_in_roles_under_the_callers_name() {
    const PLACE: (&str, &str) = ("daypass-members", "a Member must be in a role's namespace");
    const NAME: (&str, &str) = ("daypass-members", "spec.createdBy must be your own user name, or absent");
    const OUTSIDE: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member,
        metadata: {name: m, namespace: $PLAIN}, spec: {duration: 1h}}";
    const NOBODYS: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, metadata: {name: m, namespace: $ROLE},
        spec: {duration: 1h}}";
    const ANNAS: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, metadata: {name: m, namespace: $ROLE},
        spec: {duration: 1h, createdBy: anna}}";
    const MIAS: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, metadata: {name: m, namespace: $ROLE},
        spec: {duration: 1h, createdBy: mia}}";
    // Half a role, from before the policies existed.
    const HALF: &str =
        "{apiVersion: daypass.dev/v1alpha1, kind: Member, metadata: {name: m, namespace: daypass-only-named},
        spec: {duration: 1h}}";
    with_member("walls-members").check_all(&[
        attack("in another namespace", "mia", "create -f -", OUTSIDE, PLACE),
        attack("… by the administrator", "", "create -f -", OUTSIDE, PLACE),
        attack("in a namespace with a role's name but no label", "mia", "create -f -", HALF, PLACE),
        attack("under somebody else's name", "mia", "create -f -", ANNAS, NAME),
        attack("… by the administrator", "", "create -f -", ANNAS, NAME),
        legit("under one's own name", "mia", "create -f -", MIAS),
        legit("without a name", "mia", "create -f -", NOBODYS),
        legit("Daypass, under its caller's name", DAYPASS, "create -f -", ANNAS),
        legit(
            "a longer duration",
            "mia",
            r#"patch member $MEMBER -n $ROLE --type=merge -p {"spec":{"duration":"2h"}}"#,
            "",
        ),
    ]);
}

#[test]
fn only_daypass_writes_its_heartbeat() {
    const PLACE: (&str, &str) = ("daypass-members", "a Member must be in a role's namespace");
    const HEARTBEAT: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member,
        metadata: {name: heartbeat, namespace: daypass}, spec: {duration: 1s}}";
    const OTHER: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member,
        metadata: {name: m, namespace: daypass}, spec: {duration: 1s}}";
    const BEAT: &str = "annotate member heartbeat -n daypass --overwrite daypass.dev/beat=x/1";
    let test = with_member("walls-heartbeat");
    // Daypass makes it when the gateway is used.
    test.cluster().try_apply(&[&format!("--as={DAYPASS}"), "--validate=false"], HEARTBEAT);
    test.check_all(&[
        attack("a Member in Daypass's namespace", "mia", "create -f -", OTHER, PLACE),
        attack("… by the administrator", "", "create -f -", OTHER, PLACE),
        attack("… by Daypass", DAYPASS, "create -f -", OTHER, PLACE),
        attack("a number of one's own", "mia", BEAT, "", PLACE),
        attack("… by the administrator", "", BEAT, "", PLACE),
        legit("Daypass", DAYPASS, BEAT, ""),
        legit("a label, by the administrator", "", "label member heartbeat -n daypass --overwrite a=b", ""),
    ]);
}

#[test]
fn only_daypass_claims_members() {
    const CLAIM: (&str, &str) = ("daypass-members", "the annotation daypass.dev/claimed-until is Daypass's own");
    const NEW: &str = "annotate member $MEMBER -n $ROLE --overwrite daypass.dev/claimed-until=2100-01-01T00:00:00Z";
    let test = with_member("walls-claimed");
    test.check_all(&[
        attack("one that a request has just claimed", "mia", NEW, "", CLAIM),
        attack("… by the administrator", "", NEW, "", CLAIM),
        legit("Daypass", DAYPASS, NEW, ""),
    ]);
    let (role, member) = (test.fill("$ROLE"), test.fill("$MEMBER"));
    let old = "daypass.dev/claimed-until=2026-01-01T00:00:00.000Z";
    test.cluster().kubectl(&[
        "annotate",
        "--overwrite",
        "member",
        &member,
        "-n",
        &role,
        old,
        &format!("--as={DAYPASS}"),
    ]);
    test.check_all(&[
        attack("the end postponed", "mia", NEW, "", CLAIM),
        attack(
            "the end postponed in a format that sorts earlier",
            "mia",
            "annotate member $MEMBER -n $ROLE --overwrite daypass.dev/claimed-until=2025-12-31T00:00:00-23:00",
            "",
            CLAIM,
        ),
        legit("left as it is", "mia", "label member $MEMBER -n $ROLE c=d", ""),
        legit(
            "applied again from an older copy",
            "mia",
            "annotate member $MEMBER -n $ROLE --overwrite daypass.dev/claimed-until=2025-01-01T00:00:00.000Z",
            "",
        ),
        legit("taken off", "mia", "annotate member $MEMBER -n $ROLE daypass.dev/claimed-until-", ""),
    ]);
}

#[test]
fn only_daypass_writes_member_status() {
    const STATUS: (&str, &str) = ("daypass-members", "only Daypass writes a Member's status");
    const HASH: &str =
        r#"patch member $MEMBER -n $ROLE --subresource=status --type=merge -p {"status":{"credentialHash":"$HASH"}}"#;
    const LATER: &str = concat!(
        "patch member $MEMBER -n $ROLE --subresource=status --type=merge ",
        r#"-p {"status":{"expiresAt":"2099-01-01T00:00:00Z"}}"#
    );
    const NO_KUBECONFIGS: &str =
        r#"patch member $MEMBER -n $ROLE --subresource=status --type=merge -p {"status":{"kubeconfigs":[]}}"#;
    const RECORDS: &str = "get --raw /apis/daypass.dev/v1alpha1/namespaces/$ROLE/members/$MEMBER/status";
    let mut test = with_member("walls-status");
    test.set("HASH", &"a".repeat(64)).check_all(&[
        attack("a credential of one's own", "", HASH, "", STATUS),
        attack("a later end", "", LATER, "", STATUS),
        attack("a kubeconfig's record", "", NO_KUBECONFIGS, "", STATUS),
        legit("a read", "", RECORDS, ""),
    ]);
}

#[test]
fn only_daypass_sets_member_finalizers_and_owners() {
    const NONE: (&str, &str) = ("daypass-members", "a Member must not have finalizers or owner references");
    const HOLD: &str =
        r#"patch member $MEMBER -n $ROLE --type=merge -p {"metadata":{"finalizers":["example.com/hold"]}}"#;
    const ORPHAN: &str = r#"patch member $MEMBER -n $ROLE --type=merge -p {"metadata":{"finalizers":["orphan"]}}"#;
    const OWN: &str = concat!(
        "patch member $MEMBER -n $ROLE --type=merge ",
        r#"-p {"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Secret","name":"s","uid":"u"}]}}"#
    );
    const RELEASE: &str = r#"patch member $MEMBER -n $ROLE --type=merge -p {"metadata":{"finalizers":null}}"#;
    const HELD: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, spec: {duration: 1h},
        metadata: {name: m, namespace: $ROLE, finalizers: [example.com/hold]}}";
    const OWNED: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, spec: {duration: 1h}, metadata: {name: m,
        namespace: $ROLE, ownerReferences: [{apiVersion: v1, kind: Secret, name: s, uid: u}]}}";
    let test = with_member("walls-held");
    test.check_all(&[
        attack("created with a finalizer", "mia", "create -f -", HELD, NONE),
        attack("created with an owner", "mia", "create -f -", OWNED, NONE),
        attack("a finalizer added later", "mia", HOLD, "", NONE),
        attack("… by the administrator", "", HOLD, "", NONE),
        attack("the orphan finalizer kept", "mia", ORPHAN, "", NONE),
        attack("an owner added later", "mia", OWN, "", NONE),
        legit("labelled", "mia", "label member $MEMBER -n $ROLE a=b", ""),
        legit("a finalizer by Daypass", DAYPASS, HOLD, ""),
    ]);
    // A Member with a finalizer from before the policies.
    let (role, member) = (test.fill("$ROLE"), test.fill("$MEMBER"));
    let patch = |finalizers: serde_json::Value| {
        let patch = json!({"metadata": {"finalizers": finalizers}}).to_string();
        let (who, kind) = (format!("--as={DAYPASS}"), "--type=merge");
        test.cluster().kubectl(&["patch", "member", &member, "-n", &role, &who, kind, "-p", &patch]);
    };
    patch(json!(["example.com/hold"]));
    test.check_all(&[
        legit("another change of it", "mia", "label member $MEMBER -n $ROLE a=b", ""),
        legit("a finalizer removed", "mia", RELEASE, ""),
        attack("another finalizer", "mia", ORPHAN, "", NONE),
    ]);
    patch(json!(null));
}

#[test]
fn annotations_and_labels_of_a_member_are_bounded() {
    const BOUND: &str = "a Member may have at most 128 annotations and labels, of 16384 bytes together; this one has ";
    const LARGE: (&str, &str) = ("daypass-members", BOUND);
    const ONE: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, spec: {duration: 1h},
        metadata: {name: m, namespace: $ROLE, annotations: {k: $ONE}}}";
    const WIDE: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, spec: {duration: 1h},
        metadata: {name: m, namespace: $ROLE, annotations: {k: $WIDE}}}";
    const MOST: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, spec: {duration: 1h},
        metadata: {name: m, namespace: $ROLE, annotations: {k: $MOST}}}";
    const MANY: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, spec: {duration: 1h},
        metadata: {name: m, namespace: $ROLE, annotations: {$KEYS}}}";
    const LABELS: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, spec: {duration: 1h},
        metadata: {name: m, namespace: $ROLE, labels: {$KEYS}}}";
    const ANNOTATE: &str = "annotate member $MEMBER -n $ROLE k=$ONE";
    const LABEL: &str = "label member $MEMBER -n $ROLE k=v";
    const EXTEND: &str = r#"patch member $MEMBER -n $ROLE --type=merge -p {"spec":{"duration":"2h"}}"#;
    let mut test = with_member("walls-bounded");
    // As many keys as the API server takes in 256 KiB.
    let keys = |count: usize| (0..count).map(|n| format!("k{n:x}: ''")).collect::<Vec<_>>().join(", ");
    test.set("ONE", &"x".repeat(16384)).set("WIDE", &"🔑".repeat(4096)).set("MOST", &"x".repeat(16383));
    test.set("KEYS", &keys(45_000)).check_all(&[
        attack("one large annotation", "mia", "create -f -", ONE, LARGE),
        attack("… by the administrator", "", "create -f -", ONE, LARGE),
        attack("… of characters that take four bytes", "mia", "create -f -", WIDE, LARGE),
        legit("… that just fits", "mia", "create -f -", MOST),
        attack("very many annotations", "mia", "create -f -", MANY, LARGE),
        attack("very many labels", "mia", "create -f -", LABELS, LARGE),
        attack("added later", "mia", ANNOTATE, "", LARGE),
        legit("by Daypass", DAYPASS, ANNOTATE, ""),
    ]);
    test.set("KEYS", &keys(129)).check_all(&[attack("129 annotations", "mia", "create -f -", MANY, LARGE)]);
    test.set("KEYS", &keys(128)).check_all(&[
        legit("128 annotations", "mia", "create -f -", MANY),
        legit("128 labels", "mia", "create -f -", LABELS),
    ]);
    let refused = test.run("mia", "create -f -", ONE);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains(&format!("{BOUND}1, of 16385 bytes")), "{error}");

    // As from before the bound.
    let (role, member) = (test.fill("$ROLE"), test.fill("$MEMBER"));
    let large = test.fill("k=$ONE");
    let by_daypass = format!("--as={DAYPASS}");
    test.cluster().kubectl(&["annotate", "member", &member, "-n", &role, &large, &by_daypass]);
    test.check_all(&[
        attack("one more label", "mia", LABEL, "", LARGE),
        legit("extended", "mia", EXTEND, ""),
        legit("taken off", "mia", "annotate member $MEMBER -n $ROLE k-", ""),
        legit("deleted", "mia", "delete member $MEMBER -n $ROLE", ""),
    ]);
}

#[test]
fn orphaning_deletion_of_a_member_is_refused() {
    const ORPHAN: (&str, &str) = ("daypass-members", "a Member must not be deleted with propagationPolicy Orphan");
    with_member("walls-orphans").check_all(&[
        attack("by a manager", "mia", "delete member $MEMBER -n $ROLE --cascade=orphan", "", ORPHAN),
        attack("by the administrator", "", "delete member $MEMBER -n $ROLE --cascade=orphan", "", ORPHAN),
        attack("by Daypass", DAYPASS, "delete member $MEMBER -n $ROLE --cascade=orphan", "", ORPHAN),
        attack(
            "with all others",
            "mia",
            "delete --raw /apis/daypass.dev/v1alpha1/namespaces/$ROLE/members?propagationPolicy=Orphan&dryRun=All",
            "",
            ORPHAN,
        ),
        attack(
            "by the old option",
            "mia",
            "delete --raw /apis/daypass.dev/v1alpha1/namespaces/$ROLE/members/$MEMBER?orphanDependents=true&dryRun=All",
            "",
            ORPHAN,
        ),
        legit("in the background", "mia", "delete member $MEMBER -n $ROLE", ""),
        legit("in the foreground", "mia", "delete member $MEMBER -n $ROLE --cascade=foreground", ""),
        legit("all", "mia", "delete --raw /apis/daypass.dev/v1alpha1/namespaces/$ROLE/members?dryRun=All", ""),
        legit("by Daypass", DAYPASS, "delete member $MEMBER -n $ROLE", ""),
    ]);
}
