//! Lists of members, which come from each replica's own watch.

use serde_json::{Value, json};

use crate::support::{Cluster, Daypass, NewMember, Role, eventually};

fn listed(daypass: &Daypass, role: &Role) -> Vec<Value> {
    let list = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
    list["items"].as_array().unwrap().clone()
}

#[test]
fn what_a_caller_wrote_is_in_the_next_list() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    for _ in 0..20 {
        let member = NewMember::new(&daypass.owner, &role, 1);
        let own = || listed(daypass, &role).into_iter().find(|item| item["id"] == member.id.as_str());
        assert_eq!(own().unwrap()["durationSeconds"], 3600);
        let patched = daypass.owner.patch(&member.path(""), &json!({"duration": 2})).expect(200).json();
        assert_eq!(own().unwrap()["expiresAt"], patched["expiresAt"]);
        daypass.owner.delete(&member.path("")).expect(204);
        assert_eq!(own(), None);
    }
}

#[test]
fn list_has_the_number_of_live_kubeconfigs() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let count = || listed(daypass, &role)[0]["kubeconfigs"].clone();
    assert_eq!(count(), 0);
    let kubeconfigs = [member.kubeconfig(cluster), member.kubeconfig(cluster)];
    assert_eq!(count(), 2);
    let path = member.path(&format!("/kubeconfigs/{}", kubeconfigs[0].jti()));
    daypass.owner.delete(&path).expect(204);
    assert_eq!(count(), 1);
    daypass.owner.post(&member.path("/credentials"), &json!({})).expect(201);
    assert_eq!(count(), 0, "they go with the credential that they were issued for");
}

#[test]
fn what_kubectl_wrote_is_listed_soon() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    cluster.apply_member(&role, "hers", &json!({"duration": "1h"}));
    eventually("it is listed", || (listed(daypass, &role).len() == 1).then_some(()));
    cluster.apply_member(&role, "hers", &json!({"duration": "2h"}));
    eventually("its new end is listed", || (listed(daypass, &role)[0]["durationSeconds"] == 7200).then_some(()));
    cluster.kubectl(&["delete", "member", "hers", "-n", &role.namespace]);
    eventually("it is listed no longer", || listed(daypass, &role).is_empty().then_some(()));
}

#[test]
fn new_role_is_listed_and_lost_with_its_label() {
    // Without the admission policies, which refuse this.
    let (cluster, daypass) = Cluster::without_controllers();
    let roles = || {
        let roles = daypass.owner.get("/members/roles").expect(200).json();
        let ids = roles["items"].as_array().unwrap().iter().map(|role| role["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    let role = cluster.reader();
    eventually("the role is listed", || roles().contains(&role.id).then_some(()));
    let member = NewMember::new(&daypass.owner, &role, 1);
    cluster.kubectl(&["label", "namespace", &role.namespace, "daypass.dev/role-id-"]);
    eventually("the role is gone", || (!roles().contains(&role.id)).then_some(()));
    eventually("so are its members", || (daypass.owner.get(&member.path("")).status == 404).then_some(()));
    assert_eq!(member.engineer.get(&member.path("/me")).status, 401);
    cluster.kubectl(&["label", "namespace", &role.namespace, &format!("daypass.dev/role-id={}", role.id)]);
    eventually("the role is back", || roles().contains(&role.id).then_some(()));
}
