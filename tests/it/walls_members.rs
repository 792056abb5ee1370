//! The policy daypass-members: Members by whatever path.

use serde_json::json;

use crate::support::{Created, DAYPASS, Stage, attack, legit};

/// A role with the Member `$MEMBER` in it.
fn with_member(plain: &str) -> Stage<'static> {
    let (mut stage, daypass) = Stage::shared();
    let role = stage.lab().reader();
    let member = Created::new(&daypass.owner, &role, 1);
    stage.plain(plain).set("ROLE", &role.namespace).set("MEMBER", member.name());
    stage
}

#[test]
fn members_are_made_in_roles_namespaces_and_in_ones_own_name() {
    const PLACE: (&str, &str) = ("daypass-members", "a Member is made in a role's namespace");
    const NAME: (&str, &str) =
        ("daypass-members", "spec.createdBy is who creates the Member: your own user name, or nothing");
    const OUTSIDE: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, metadata: {name: m, namespace: $PLAIN}, spec: {duration: 1h}}";
    const NOBODYS: &str =
        "{apiVersion: daypass.dev/v1alpha1, kind: Member, metadata: {name: m, namespace: $ROLE}, spec: {duration: 1h}}";
    const ANNAS: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, metadata: {name: m, namespace: $ROLE},
        spec: {duration: 1h, createdBy: anna}}";
    const MIAS: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, metadata: {name: m, namespace: $ROLE},
        spec: {duration: 1h, createdBy: mia}}";
    // Half a role, from before the policies were there.
    const HALF: &str =
        "{apiVersion: daypass.dev/v1alpha1, kind: Member, metadata: {name: m, namespace: daypass-only-named},
        spec: {duration: 1h}}";
    with_member("walls-members").play(&[
        attack("in another namespace", "mia", "create -f -", OUTSIDE, PLACE),
        attack("… by the administrator", "", "create -f -", OUTSIDE, PLACE),
        attack("in a namespace that is named like a role's", "mia", "create -f -", HALF, PLACE),
        attack("in somebody else's name", "mia", "create -f -", ANNAS, NAME),
        attack("… by the administrator", "", "create -f -", ANNAS, NAME),
        legit("in one's own name", "mia", "create -f -", MIAS),
        legit("in nobody's", "mia", "create -f -", NOBODYS),
        legit("Daypass, in its caller's", DAYPASS, "create -f -", ANNAS),
        legit(
            "a longer duration",
            "mia",
            r#"patch member $MEMBER -n $ROLE --type=merge -p {"spec":{"duration":"2h"}}"#,
            "",
        ),
    ]);
}

#[test]
fn nobody_but_daypass_claims_a_member() {
    const CLAIM: (&str, &str) = ("daypass-members", "the annotation daypass.dev/claimed-until is Daypass's own");
    const NEW: &str = "annotate member $MEMBER -n $ROLE --overwrite daypass.dev/claimed-until=2100-01-01T00:00:00Z";
    let stage = with_member("walls-claimed");
    stage.play(&[
        attack("one that a request has just claimed", "mia", NEW, "", CLAIM),
        attack("… by the administrator", "", NEW, "", CLAIM),
        legit("Daypass", DAYPASS, NEW, ""),
    ]);
    let (role, member) = (stage.fill("$ROLE"), stage.fill("$MEMBER"));
    let old = "daypass.dev/claimed-until=2026-01-01T00:00:00.000Z";
    stage.lab().kubectl(&["annotate", "--overwrite", "member", &member, "-n", &role, old, &format!("--as={DAYPASS}")]);
    stage.play(&[
        attack("put off", "mia", NEW, "", CLAIM),
        attack(
            "put off in a form that sorts before",
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
fn nobody_but_daypass_writes_a_members_status() {
    const STATUS: (&str, &str) = ("daypass-members", "only Daypass writes a Member's status");
    const HASH: &str =
        r#"patch member $MEMBER -n $ROLE --subresource=status --type=merge -p {"status":{"credentialHash":"$HASH"}}"#;
    const LATER: &str = r#"patch member $MEMBER -n $ROLE --subresource=status --type=merge -p {"status":{"expiresAt":"2099-01-01T00:00:00Z"}}"#;
    const RECORDS: &str = "get --raw /apis/daypass.dev/v1alpha1/namespaces/$ROLE/members/$MEMBER/status";
    let mut stage = with_member("walls-status");
    stage.set("HASH", &"a".repeat(64)).play(&[
        attack("a credential of one's own", "", HASH, "", STATUS),
        attack("a later end", "", LATER, "", STATUS),
        legit("a look", "", RECORDS, ""),
    ]);
}

#[test]
fn nothing_but_daypass_holds_or_owns_a_member() {
    const NONE: (&str, &str) = ("daypass-members", "a Member has no finalizers and no owner references");
    const HOLD: &str =
        r#"patch member $MEMBER -n $ROLE --type=merge -p {"metadata":{"finalizers":["example.com/hold"]}}"#;
    const ORPHAN: &str = r#"patch member $MEMBER -n $ROLE --type=merge -p {"metadata":{"finalizers":["orphan"]}}"#;
    const OWN: &str = r#"patch member $MEMBER -n $ROLE --type=merge -p {"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Secret","name":"s","uid":"u"}]}}"#;
    const RELEASE: &str = r#"patch member $MEMBER -n $ROLE --type=merge -p {"metadata":{"finalizers":null}}"#;
    const HELD: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, spec: {duration: 1h},
        metadata: {name: m, namespace: $ROLE, finalizers: [example.com/hold]}}";
    const OWNED: &str = "{apiVersion: daypass.dev/v1alpha1, kind: Member, spec: {duration: 1h}, metadata: {name: m,
        namespace: $ROLE, ownerReferences: [{apiVersion: v1, kind: Secret, name: s, uid: u}]}}";
    let stage = with_member("walls-held");
    stage.play(&[
        attack("made with a finalizer", "mia", "create -f -", HELD, NONE),
        attack("made with an owner", "mia", "create -f -", OWNED, NONE),
        attack("held later", "mia", HOLD, "", NONE),
        attack("… by the administrator", "", HOLD, "", NONE),
        attack("left an orphan maker", "mia", ORPHAN, "", NONE),
        attack("owned later", "mia", OWN, "", NONE),
        legit("labelled", "mia", "label member $MEMBER -n $ROLE a=b", ""),
        legit("held by Daypass", DAYPASS, HOLD, ""),
    ]);
    // One that is held already, as by a controller from before the policies.
    let (role, member) = (stage.fill("$ROLE"), stage.fill("$MEMBER"));
    let patch = |finalizers: serde_json::Value| {
        let patch = json!({"metadata": {"finalizers": finalizers}}).to_string();
        let (who, kind) = (format!("--as={DAYPASS}"), "--type=merge");
        stage.lab().kubectl(&["patch", "member", &member, "-n", &role, &who, kind, "-p", &patch]);
    };
    patch(json!(["example.com/hold"]));
    stage.play(&[
        legit("another change of it", "mia", "label member $MEMBER -n $ROLE a=b", ""),
        legit("it is let go", "mia", RELEASE, ""),
        attack("it is held once more", "mia", ORPHAN, "", NONE),
    ]);
    patch(json!(null));
}

#[test]
fn a_member_is_not_deleted_with_its_service_account_left_behind() {
    const ORPHAN: (&str, &str) =
        ("daypass-members", "a Member is not deleted with its service account left behind (propagationPolicy Orphan)");
    with_member("walls-orphans").play(&[
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
