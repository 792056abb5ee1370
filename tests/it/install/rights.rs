//! What a role can do, computed from the live cluster: `GET /members/roles`, and the audit event when it grows.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Cluster, DAYPASS, Daypass, Launch, NewMember, Role, eventually};

/// `readOnly`, `streamsOutliveMember` and `escapes` of a role. Checks that `contained` means no escapes.
#[track_caller]
fn rights(daypass: &Daypass, role: &Role) -> (bool, bool, Vec<String>) {
    let found = daypass.listed_role(&role.id);
    let escapes: Vec<String> = serde_json::from_value(found["escapes"].clone()).unwrap();
    assert_eq!(found["contained"], escapes.is_empty(), "{found}");
    (found["readOnly"] == true, found["streamsOutliveMember"] == true, escapes)
}

/// Waits until a role has these rights. Daypass sees a change of RBAC a moment later.
#[track_caller]
fn wait_rights(daypass: &Daypass, role: &Role, read_only: bool, streams: bool, escapes: &[&str]) {
    let expected = (read_only, streams, escapes.iter().map(|it| (*it).to_owned()).collect());
    eventually(&format!("{} has the rights {expected:?}", role.id), || {
        (rights(daypass, role) == expected).then_some(())
    });
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

/// Creates a ClusterRole and binds it to a group, in a namespace or everywhere.
fn grant(name: &str, group: &str, namespace: Option<&str>, rules: &Value) -> String {
    let api = "rbac.authorization.k8s.io";
    let version = format!("{api}/v1");
    let kind = if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" };
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": name}, "rules": [rules]},
        {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace},
         "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
         "subjects": [{"apiGroup": api, "kind": "Group", "name": group}]},
    ]})
    .to_string()
}

#[test]
fn shipped_roles_are_contained_and_three_are_read_only() {
    let (_, daypass) = Cluster::shared();
    // An API server that was too slow for a check counts as one without walls for a while.
    eventually("the walls are in force", || {
        (daypass.owner.get("/members/roles").expect(200).json()["walls"] == true).then_some(())
    });
    for (id, reads_only) in
        [("projects-view", true), ("nodes-view", true), ("storage-view", true), ("pods-restart", false)]
    {
        let role = Role { id: id.to_owned(), namespace: format!("daypass-{id}") };
        wait_rights(daypass, &role, reads_only, true, &[]);
        assert_eq!(daypass.listed_role(&role.id)["namespaces"], Value::Null, "{id}");
    }
}

#[test]
fn every_escape_of_a_role_is_named() {
    let (cluster, daypass) = Cluster::shared();
    let rbac = "rbac.authorization.k8s.io";
    for (rule, read_only, streams, escape) in [
        (rule("", &["pods", "namespaces"], &["get", "list"]), true, false, None),
        (rule("", &["pods"], &["get", "watch"]), true, true, None),
        (rule("", &["pods/log"], &["get"]), true, true, None),
        (rule("", &["services"], &["create", "delete"]), false, false, None),
        (rule(rbac, &["clusterroles"], &["escalate"]), false, false, Some("ESCALATE")),
        (rule(rbac, &["roles"], &["bind"]), false, false, Some("BIND")),
        (rule("", &["serviceaccounts"], &["impersonate"]), false, false, Some("IMPERSONATE")),
        (rule("authentication.k8s.io", &["uids"], &["impersonate"]), false, false, Some("IMPERSONATE")),
        (
            rule("admissionregistration.k8s.io", &["mutatingwebhookconfigurations"], &["patch"]),
            false,
            false,
            Some("ADMISSION_CONTROL"),
        ),
        (rule(rbac, &["clusterrolebindings"], &["delete"]), false, false, Some("RBAC")),
        (rule("apiregistration.k8s.io", &["apiservices"], &["delete"]), false, false, Some("API_EXTENSIONS")),
        (
            rule("flowcontrol.apiserver.k8s.io", &["prioritylevelconfigurations"], &["update"]),
            false,
            false,
            Some("FLOW_CONTROL"),
        ),
        (rule("", &["configmaps"], &["patch"]), false, false, Some("CLUSTER_CONFIGURATION")),
        (rule("certificates.k8s.io", &["certificatesigningrequests"], &["create"]), false, false, Some("CREDENTIALS")),
        (rule("apps", &["controllerrevisions"], &["create", "delete"]), false, false, Some("SERVICE_ACCOUNT_TOKENS")),
        (rule("", &["nodes/proxy"], &["get"]), false, true, Some("NODES_PROXY")),
        (rule("", &["serviceaccounts/token"], &["create"]), false, false, Some("SERVICE_ACCOUNT_TOKENS")),
        (rule("", &["secrets"], &["get"]), false, false, Some("SERVICE_ACCOUNT_TOKENS")),
        (rule("", &["pods/exec"], &["create"]), false, true, Some("SERVICE_ACCOUNT_TOKENS")),
        (rule("apps", &["deployments"], &["patch"]), false, false, Some("SERVICE_ACCOUNT_TOKENS")),
        (rule("apps", &["*"], &["list"]), false, false, Some("WILDCARD")),
    ] {
        let role = cluster.role(json!([rule]));
        eventually(&format!("{rule} gives {read_only} {streams} {escape:?}"), || {
            let found = rights(daypass, &role);
            let has = |wanted: &str| found.2.iter().any(|escape| escape == wanted);
            let is_it = escape.map_or(found.2.is_empty(), has) && (found.0, found.1) == (read_only, streams);
            is_it.then_some(())
        });
    }
}

#[test]
fn namespaced_role_names_its_namespaces() {
    let (cluster, daypass) = Cluster::shared();
    for namespace in ["rights-blue", "rights-green"] {
        cluster.kubectl(&["create", "namespace", namespace]);
    }
    let rules = [rule("", &["pods"], &["get", "list"])];
    let role = cluster.role_of(&json!({"rules": rules, "namespaces": ["rights-green", "rights-blue"]}));
    eventually("both namespaces are named", || {
        (daypass.listed_role(&role.id)["namespaces"] == json!(["rights-blue", "rights-green"])).then_some(())
    });
    let kubeconfig = NewMember::new(&daypass.owner, &role, 1).kubeconfig(cluster).file;
    assert!(cluster.kubectl_with(&kubeconfig, &["get", "pods", "-n", "rights-blue"]).status.success());
    assert!(!cluster.kubectl_with(&kubeconfig, &["get", "pods", "-n", "default"]).status.success());
}

#[test]
fn role_includes_all_bindings_of_its_group() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    wait_rights(daypass, &role, true, false, &[]);
    let group = format!("system:serviceaccounts:{}", role.namespace);
    let name = format!("tests-{}", role.id);
    cluster.apply(&grant(&name, &group, Some("default"), &rule("", &["serviceaccounts/token"], &["create"])));
    wait_rights(daypass, &role, false, false, &["SERVICE_ACCOUNT_TOKENS"]);
    cluster.kubectl(&["delete", "rolebinding", &name, "-n", "default"]);
    wait_rights(daypass, &role, true, false, &[]);
}

#[test]
fn new_binding_shows_although_its_role_is_older() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let api = "rbac.authorization.k8s.io";
    let group = format!("system:serviceaccounts:{}", role.namespace);
    for (kind, flag) in [("ClusterRole", "clusterrole"), ("Role", "role")] {
        // A name that has to be encoded in a path.
        let name = format!("tests older?{}#", role.id);
        let metadata = json!({"name": name, "namespace": (kind == "Role").then_some("default")});
        cluster.create(&json!({
            "apiVersion": format!("{api}/v1"), "kind": kind, "metadata": metadata,
            "rules": [rule("", &["nodes/proxy"], &["get"])],
        }));
        // Daypass has seen the older role when it has seen this one.
        let newer = cluster.role(json!([rule("", &["pods/log"], &["get"])]));
        wait_rights(daypass, &newer, true, true, &[]);
        wait_rights(daypass, &role, true, false, &[]);
        let binding = format!("tests-older-{}", role.id);
        cluster.kubectl(&[
            "create",
            "rolebinding",
            &binding,
            "-n",
            "default",
            &format!("--{flag}={name}"),
            &format!("--group={group}"),
        ]);
        let bound = Instant::now();
        wait_rights(daypass, &role, false, true, &["NODES_PROXY"]);
        println!("a new binding of an older {kind} showed {:?} after kubectl had made it", bound.elapsed());
        cluster.kubectl(&["delete", "rolebinding", &binding, "-n", "default"]);
        wait_rights(daypass, &role, true, false, &[]);
    }
}

#[test]
fn role_includes_aggregated_cluster_roles() {
    let (cluster, daypass) = Cluster::shared();
    let cluster_role = |name: &str, more: Value| {
        let mut role =
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}});
        role.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        cluster.apply(&role.to_string());
    };
    let selector = json!([{"matchLabels": {"tests.example.com/aggregate": "yes"}}]);
    cluster_role("tests-aggregated", json!({"aggregationRule": {"clusterRoleSelectors": selector}, "rules": []}));
    let role = cluster.role_of(&json!({"clusterRoles": ["tests-aggregated"]}));
    wait_rights(daypass, &role, true, false, &[]);
    cluster_role(
        "tests-aggregate",
        json!({
            "metadata": {"name": "tests-aggregate", "labels": {"tests.example.com/aggregate": "yes"}},
            "rules": [rule("", &["nodes/proxy"], &["get"])],
        }),
    );
    wait_rights(daypass, &role, false, true, &["NODES_PROXY"]);
}

#[test]
fn role_includes_rights_of_everyone_except_defaults() {
    let cluster = Cluster::exclusive();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let role = cluster.reader();
    // Kubernetes' own bindings let everyone ask about themselves.
    wait_rights(&daypass, &role, true, false, &[]);
    let exec = rule("", &["nodes/proxy"], &["create"]);
    for (group, namespace) in [
        ("system:authenticated", None),
        ("system:authenticated", Some("default")),
        ("system:serviceaccounts", None),
        ("system:serviceaccounts", Some("default")),
    ] {
        // A label does not make a binding one of Kubernetes' defaults.
        for label in [Value::Null, json!({"kubernetes.io/bootstrapping": "rbac-defaults"})] {
            let mut objects: Value = serde_json::from_str(&grant("tests-everyone", group, namespace, &exec)).unwrap();
            objects["items"][1]["metadata"]["labels"] = label;
            cluster.apply(&objects.to_string());
            wait_rights(&daypass, &role, false, true, &["NODES_PROXY"]);
            let kind = if namespace.is_some() { "rolebinding" } else { "clusterrolebinding" };
            let place = format!("--namespace={}", namespace.unwrap_or_default());
            cluster.kubectl(&["delete", kind, "tests-everyone", &place]);
            wait_rights(&daypass, &role, true, false, &[]);
        }
    }
    daypass.stop();
}

/// How many LISTs of RBAC the API server has answered to Daypass.
fn rbac_lists(cluster: &Cluster) -> usize {
    let log = fs::read_to_string(cluster.plane.audit_log()).unwrap();
    let lines = log.lines().filter(|line| line.contains(DAYPASS) && line.contains("\"verb\":\"list\""));
    lines.filter(|line| line.contains("\"apiGroup\":\"rbac.authorization.k8s.io\"")).count()
}

#[test]
fn rbac_is_listed_at_the_start_and_never_for_a_request() {
    let cluster = Cluster::exclusive();
    let role = cluster.reader();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    wait_rights(&daypass, &role, true, false, &[]);
    let before = rbac_lists(&cluster);
    assert!(before >= 4, "the audit log has LISTs: {before}");
    let member = NewMember::new(&daypass.owner, &role, 1);
    member.kubeconfig(&cluster);
    daypass.owner.get("/members/roles").expect(200);
    assert_eq!(rbac_lists(&cluster), before);
    let status = cluster.object(&role.namespace, "member", member.name()).unwrap()["status"].clone();
    assert!(status["roleHash"].is_string(), "{status}");

    // Neither does a leader that compares the members' roles with what they were given.
    daypass.stop();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    daypass.wait_roles_compared();
    let lists = ["list_cluster_role_bindings", "list_role_bindings", "list_cluster_roles", "list_roles"];
    assert_eq!(lists.map(|call| daypass.calls(call)), [1.0; 4]);
    daypass.stop();
}

#[test]
fn unreadable_rights_count_as_the_worse_case() {
    let cluster = Cluster::exclusive();
    cluster.expect_refusals();
    let role = cluster.reader();
    let own = cluster.object("default", "clusterrole", "daypass").unwrap();
    let all = own["rules"].as_array().unwrap().clone();
    let is_rbac = |rule: &Value| rule["apiGroups"] == json!(["rbac.authorization.k8s.io"]);
    let less: Vec<Value> = all.iter().filter(|rule| !is_rbac(rule)).cloned().collect();
    assert!(less.len() < all.len(), "{own}");
    let replace = |rules: &[Value]| {
        let patch = json!([{"op": "replace", "path": "/rules", "value": rules}]).to_string();
        cluster.kubectl(&["patch", "clusterrole", "daypass", "--type=json", "-p", &patch]);
    };
    replace(&less);
    let list = json!({"group": "rbac.authorization.k8s.io", "resource": "clusterroles", "verb": "list"});
    eventually("the right is gone", || (!cluster.api.allows(DAYPASS, &list)).then_some(()));
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    assert_eq!(rights(&daypass, &role), (false, true, vec!["UNKNOWN".to_owned()]));
    assert_eq!(daypass.listed_role(&role.id)["namespaces"], Value::Null);
    eventually("the metric shows it", || {
        (daypass.metric("daypass_rights_outdated_since_timestamp_seconds") > 0.0).then_some(())
    });
    let member = NewMember::new(&daypass.owner, &role, 1);
    let hash = || cluster.object(&role.namespace, "member", member.name()).unwrap()["status"]["roleHash"].clone();
    assert_eq!(hash(), Value::Null);
    replace(&all);
    wait_rights(&daypass, &role, true, false, &[]);
    eventually("the metric shows it", || {
        (daypass.metric("daypass_rights_outdated_since_timestamp_seconds") < 1.0).then_some(())
    });
    eventually("the member's status says what it was given", || hash().is_string().then_some(()));
    assert_eq!(daypass.event_kinds(&member.id), ["MEMBER_CREATED"]);
    daypass.stop();
}

#[test]
fn widened_role_is_reported_once_and_narrowed_role_is_not() {
    let cluster = Cluster::exclusive();
    let get = rule("", &["pods"], &["get"]);
    let list = rule("", &["pods"], &["list"]);
    let (grows, shrinks) = (cluster.role(json!([get])), cluster.role(json!([get, list])));
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let ids: Vec<String> =
        [&grows, &shrinks].map(|role| NewMember::new(&daypass.owner, role, 1).id).into_iter().collect();
    let names: Vec<&str> = ids.iter().map(|id| id.split_once('.').unwrap().1).collect();
    let status = |role: &Role, name: &str| cluster.object(&role.namespace, "member", name).unwrap()["status"].clone();
    // A replica that has just started may not know RBAC yet. Then the next check records what the role can do.
    let granted = eventually("what both can do is recorded", || {
        let granted = [status(&grows, names[0])["roleHash"].clone(), status(&shrinks, names[1])["roleHash"].clone()];
        granted.iter().all(Value::is_string).then_some(granted)
    });
    assert_ne!(granted[0], granted[1]);
    let widened = |status: &Value| {
        let conditions = status["conditions"].as_array().unwrap().clone();
        conditions.into_iter().find(|condition| condition["type"] == "RoleWidened")
    };
    let events = |daypass: &Daypass, id: &str| -> Vec<Value> {
        daypass.audit(id).into_iter().filter(|event| event["event"] == "ROLE_WIDENED").collect()
    };

    // A new leader reads all roles, so this one knows them as they are now.
    daypass.stop();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    daypass.wait_roles_compared();
    let set_rules =
        |role: &Role, rules: Value| cluster.apply(&cluster.render_role(&role.id, &json!({"rules": rules})));
    set_rules(&grows, json!([get, list]));
    set_rules(&shrinks, json!([get]));
    eventually("both changes are recorded", || {
        let now = [status(&grows, names[0])["roleHash"].clone(), status(&shrinks, names[1])["roleHash"].clone()];
        (now[0] != granted[0] && now[1] != granted[1]).then_some(())
    });
    let condition = widened(&status(&grows, names[0])).expect("a condition");
    assert_eq!((&condition["status"], &condition["reason"]), (&"True".into(), &"RightsAdded".into()));
    assert_eq!(widened(&status(&shrinks, names[1])), None);
    let reported = eventually("it is reported", || events(&daypass, &ids[0]).into_iter().next());
    assert_eq!(reported["actor"], json!({"type": "KUBERNETES"}));
    assert_eq!(reported["member"]["roleId"], *grows.id);
    assert_eq!(events(&daypass, &ids[1]), [] as [Value; 0]);

    // The next leader does not report it again.
    daypass.stop();
    assert_eq!(events(&daypass, &ids[0]).len(), 1);
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    daypass.wait_roles_compared();
    assert!(ids.iter().all(|id| events(&daypass, id).is_empty()), "{:?}", daypass.audit_events());
    assert!(widened(&status(&grows, names[0])).is_some(), "the condition stays");
    daypass.stop();
}
