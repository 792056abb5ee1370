//! Refusals by an admission policy of the cluster's owner: what the caller reads, and that nothing half done stays.

use serde_json::{Value, json};

use crate::support::policies::{ForeignPolicies, REASON, Writes};
use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Answer, Cluster, Leftovers, NewMember, Role, eventually};

const REFUSED: &str = "DP_ERR_REFUSED_BY_CLUSTER_POLICY";

const fn writes(operation: &'static str, group: &'static str, resource: &'static str) -> Writes {
    Writes { operation, group, resource }
}

const CREATE_MEMBER: Writes = writes("CREATE", "daypass.dev", "members");
const UPDATE_MEMBER: Writes = writes("UPDATE", "daypass.dev", "members");
const DELETE_MEMBER: Writes = writes("DELETE", "daypass.dev", "members");
const UPDATE_STATUS: Writes = writes("UPDATE", "daypass.dev", "members/status");
const CREATE_ACCOUNT: Writes = writes("CREATE", "", "serviceaccounts");
const CREATE_SECRET: Writes = writes("CREATE", "", "secrets");
const CREATE_TOKEN: Writes = writes("CREATE", "", "serviceaccounts/token");

/// Checks that this says what refused it, without a detail of the policy and without asking for a retry.
#[track_caller]
fn assert_refused(answer: &Answer) {
    let body = answer.problem(403, REFUSED);
    assert_eq!(body["title"], "Refused by a cluster policy");
    assert_eq!(answer.header("retry-after"), "");
    assert!(!answer.text.contains(REASON) && !answer.text.contains("owners-policy"), "{}", answer.text);
}

/// Policies that refuse these writes in a role.
fn refuse_in<'a>(cluster: &'a Cluster, role: &Role, writes: &[Writes]) -> ForeignPolicies<'a> {
    let condition = format!("request.namespace == '{}'", role.namespace);
    ForeignPolicies::admission(cluster, writes, &[(condition, None)])
}

/// A webhook chooses any status. Some of them mean something else when Kubernetes itself sends them.
#[test]
fn refusal_by_a_webhook_has_one_code_for_every_status() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let statuses = [
        json!({}),
        json!({"code": 200}),
        json!({"code": 400, "reason": "BadRequest"}),
        json!({"code": 401, "reason": "Unauthorized"}),
        json!({"code": 403, "reason": "Forbidden"}),
        json!({"code": 404, "reason": "NotFound"}),
        json!({"code": 409, "reason": "AlreadyExists"}),
        json!({"code": 409, "reason": "Conflict"}),
        json!({"code": 422, "reason": "Invalid"}),
        json!({"code": 429, "reason": "TooManyRequests", "details": {"retryAfterSeconds": 1}}),
        json!({"code": 500, "reason": "InternalError"}),
        json!({"code": 503, "reason": "ServiceUnavailable"}),
    ];
    let user = |n: usize| format!("{}-{n}", role.id);
    let refusals: Vec<(String, Value)> = statuses
        .iter()
        .enumerate()
        .map(|(n, status)| (format!("object.spec.?username.orValue('') == '{}'", user(n)), status.clone()))
        .collect();
    let policies = ForeignPolicies::webhooks(cluster, &[CREATE_MEMBER], &refusals);
    for n in 0..statuses.len() {
        let body = json!({"duration": 1, "roleId": role.id, "username": user(n)});
        let answer = daypass.owner.post("/members", &body);
        assert_refused(&answer);
        let log = daypass.log();
        let id = answer.header("x-request-id");
        let line = log.lines().find(|line| line.contains(id) && line.contains(&policies.of(n)));
        assert!(line.is_some_and(|line| line.contains(REASON)), "{n}: the log names the policy");
    }
    assert_eq!(cluster.names(&role.namespace, "members"), [""; 0]);
}

#[test]
fn refusal_by_an_admission_policy_has_one_code_for_every_reason() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let reasons = [None, Some("Forbidden"), Some("Invalid"), Some("RequestEntityTooLarge")];
    let user = |n: usize| format!("{}-{n}", role.id);
    let refusals: Vec<(String, Option<&str>)> = reasons
        .iter()
        .enumerate()
        .map(|(n, reason)| (format!("object.spec.?username.orValue('') == '{}'", user(n)), *reason))
        .collect();
    let policies = ForeignPolicies::admission(cluster, &[CREATE_MEMBER], &refusals);
    for n in 0..reasons.len() {
        let body = json!({"duration": 1, "roleId": role.id, "username": user(n)});
        assert_refused(&daypass.owner.post("/members", &body));
        assert!(daypass.log().contains(&policies.of(n)), "{n}: the log names the policy");
    }
    assert_eq!(cluster.names(&role.namespace, "members"), [""; 0]);
}

#[test]
fn unreachable_webhook_is_a_reason_to_retry() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let condition = format!("request.namespace == '{}'", role.namespace);
    let _policies = ForeignPolicies::dead_webhook(cluster, &[CREATE_MEMBER], &condition);
    let answer = daypass.owner.post("/members", &json!({"duration": 1, "roleId": role.id}));
    answer.problem(503, "DP_ERR_UNAVAILABLE");
    assert_ne!(answer.header("retry-after"), "");
}

#[test]
fn refused_step_of_a_creation_leaves_nothing() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let body = json!({"duration": 1, "roleId": role.id});
    for step in [CREATE_ACCOUNT, UPDATE_STATUS] {
        let _policies = refuse_in(cluster, &role, &[step]);
        assert_refused(&daypass.owner.post("/members", &body));
        assert_eq!(cluster.names(&role.namespace, "members"), [""; 0], "{}", step.resource);
        assert_eq!(cluster.names(&role.namespace, "serviceaccounts"), [""; 0], "{}", step.resource);
    }
    // If the removal is refused as well, the controller repeats it.
    let policies = refuse_in(cluster, &role, &[CREATE_ACCOUNT, DELETE_MEMBER]);
    assert_refused(&daypass.owner.post("/members", &body));
    let [half] = &cluster.names(&role.namespace, "members")[..] else { panic!("one Member is left") };
    daypass.owner.get(&format!("/members/{}.{half}", role.id)).problem(404, "DP_ERR_NOT_FOUND");
    drop(policies);
    cluster.wait_gone(&role, half);
}

#[test]
fn refused_step_of_a_kubeconfig_leaves_no_secret() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    for step in [CREATE_SECRET, CREATE_TOKEN, UPDATE_STATUS] {
        let policies = refuse_in(cluster, &role, &[step]);
        assert_refused(&member.engineer.get(&member.path("/kubeconfig")));
        assert_eq!(cluster.names(&role.namespace, "secrets"), [""; 0], "{}", step.resource);
        drop(policies);
    }
    assert!(member.kubeconfig(cluster).is_accepted(cluster));
}

#[test]
fn refused_change_leaves_the_member_as_it_was() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let policies = refuse_in(cluster, &role, &[UPDATE_MEMBER]);
    assert_refused(&daypass.owner.patch(&member.path(""), &json!({"duration": 4})));
    assert_eq!(daypass.owner.get(&member.path("")).expect(200).json()["expiresAt"], member.body["expiresAt"]);
    drop(policies);
    let policies = refuse_in(cluster, &role, &[UPDATE_STATUS]);
    assert_refused(&daypass.owner.post(&member.path("/credentials"), &json!({})));
    assert_refused(&daypass.owner.patch(&member.path(""), &json!({"duration": 4})));
    assert_eq!(daypass.owner.get(&member.path("")).expect(200).json()["expiresAt"], member.body["expiresAt"]);
    drop(policies);
    assert!(member.kubeconfig(cluster).is_accepted(cluster), "the credential is still good");
}

/// 404 and 409 from Kubernetes mean that the object is gone. From a webhook they do not.
#[test]
fn refused_deletion_ends_access_and_is_repeated() {
    let (cluster, daypass) = Cluster::shared();
    for code in [404, 409] {
        let role = cluster.reader();
        let member = NewMember::new(&daypass.owner, &role, 1);
        let kubeconfig = member.kubeconfig(cluster);
        let condition = format!("request.namespace == '{}'", role.namespace);
        let policies = ForeignPolicies::webhooks(cluster, &[DELETE_MEMBER], &[(condition, json!({"code": code}))]);
        assert_refused(&daypass.owner.delete(&member.path("")));
        let left = Leftovers { member: true, account: false, secrets: 0 };
        assert_eq!(cluster.leftovers(&role, member.name()), left, "{code}");
        member.assert_dead(daypass);
        kubeconfig.wait_refused(cluster);
        drop(policies);
        cluster.wait_gone(&role, member.name());
        assert_eq!(daypass.event_kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"]);
    }
}

#[test]
fn member_ends_on_time_although_its_writes_are_refused() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let policies = refuse_in(cluster, &role, &[CREATE_ACCOUNT, UPDATE_STATUS]);
    cluster.apply_member(&role, "refused", &json!({"duration": "1h"}));
    eventually("the log names the policy", || {
        let log = daypass.log();
        let mut lines = log.lines().filter(|line| line.contains("could not be reconciled"));
        lines.any(|line| line.contains(&policies.of(0))).then_some(())
    });
    // Only writes of its status are refused.
    cluster.patch(&role.namespace, "member", "refused", &json!({"spec": {"duration": "1s"}}));
    cluster.wait_gone(&role, "refused");
    daypass.wait_event(&format!("{}.refused", role.id), "EXPIRED");
}

#[test]
fn refused_write_of_an_access_token_has_the_same_code() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    let condition = format!(
        "(object == null ? oldObject : object).spec.owner.username == '{}'",
        cluster.stored(&pat).unwrap()["spec"]["owner"]["username"].as_str().unwrap()
    );
    let operations = ["CREATE", "UPDATE", "DELETE"].map(|operation| writes(operation, "daypass.dev", "accesstokens"));
    let policies = ForeignPolicies::webhooks(cluster, &operations, &[(condition, json!({"code": 409}))]);
    assert_refused(&caller.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})));
    assert_refused(&caller.patch(&pat.path(), &json!({"name": "other"})));
    assert_refused(&caller.post(&format!("{}/rotate", pat.path()), &json!({})));
    pat.http.get("/tokens/self").expect(200);
    assert_refused(&caller.delete(&pat.path()));
    pat.http.assert_refused();
    drop(policies);
    cluster.wait_token_gone(&pat);
}
