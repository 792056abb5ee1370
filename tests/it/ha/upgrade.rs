//! An upgrade from the version before, and the way back, under load: what was given stays, and what ends, ends.

use std::env;
use std::path::{Path, PathBuf};

use daypass_local::RELEASE;
use serde_json::json;

use super::load::{CLIENTS, Service, under_load};
use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{CHART, Cluster, Daypass, Kubeconfig, Launch, NewMember, Role, eventually};

/// The folder of the version before, with its program and its chart.
fn previous() -> PathBuf {
    let Some(folder) = env::var_os("DAYPASS_PREVIOUS") else {
        panic!("the environment variable DAYPASS_PREVIOUS must name a folder: use `make test`, which builds it");
    };
    folder.into()
}

/// What users have when their cluster is upgraded.
struct Given<'a> {
    cluster: &'a Cluster,
    role: Role,
    member: NewMember,
    kubeconfig: Kubeconfig,
    token: AccessToken,
    session: AccessToken,
}

impl<'a> Given<'a> {
    /// Asks a replica for all of it.
    fn by(cluster: &'a Cluster, daypass: &Daypass) -> Self {
        let role = cluster.reader();
        let member = NewMember::new(&daypass.owner, &role, 2);
        let token = AccessToken::new(&cluster.generator(daypass), &SCOPES);
        Self { kubeconfig: member.kubeconfig(cluster), session: token.sign_in(), cluster, role, member, token }
    }

    /// Checks that a replica knows it, the kubeconfig under this id, and that nothing was lost.
    #[track_caller]
    fn assert_alive(&self, daypass: &Daypass, kubeconfig: &str) {
        let engineer = daypass.owner.with_basic(&self.member.id, &self.member.password);
        assert_eq!(self.member.listed(&engineer), [kubeconfig]);
        assert!(self.kubeconfig.is_accepted(self.cluster));
        let now = daypass.owner.get(&self.member.path("")).expect(200).json();
        assert_eq!((&now["status"], &now["expiresAt"]), (&json!("ACTIVE"), &self.member.body["expiresAt"]));
        self.token.at(daypass).get("/tokens/self").expect(200);
        self.session.at(daypass).get("/tokens/self").expect(200);
    }

    /// Ends all of it.
    #[track_caller]
    fn end(&self, daypass: &Daypass) {
        daypass.owner.delete(&self.member.path("")).expect(204);
        self.token.at(daypass).delete("/tokens/self").expect(204);
        self.session.at(daypass).assert_refused();
        eventually("the kubeconfig is refused", || (!self.kubeconfig.is_accepted(self.cluster)).then_some(()));
    }
}

/// A replica of the program under test, or of another.
fn launch(program: Option<&Path>) -> Launch {
    Launch {
        program: program.map(Path::to_owned),
        args: vec!["--shutdown-delay-seconds=10".to_owned()],
        ..Launch::default()
    }
}

#[test]
fn upgrade_and_rollback_keep_what_was_given() {
    let previous = previous();
    let cluster = Cluster::of_chart(&previous.join("chart"));
    let (old, new) = (launch(Some(&previous.join("daypass"))), launch(None));
    let service = Service::start();
    let mut replicas = [(); 2].map(|()| Daypass::start(&cluster, &old));
    replicas.iter().for_each(|replica| service.add(replica));
    let owner = replicas[0].owner.clone();
    let role = cluster.reader();
    let members: Vec<NewMember> = (0..CLIENTS).map(|_| NewMember::new(&owner, &role, 2)).collect();
    let before = Given::by(&cluster, &replicas[0]);
    // Ends under the new version, unless the machine is slow.
    cluster.apply_member(&before.role, "brief", &json!({"duration": "60s"}));

    let certificate = cluster.serving_certificate();
    let tally = under_load(&service, &certificate, owner.token(), &members, |_| {
        // Replaces both replicas, as a Deployment does.
        let mut roll = |launch: &Launch| {
            for replica in &mut replicas {
                let next = Daypass::start(&cluster, launch);
                service.add(&next);
                let mut last = std::mem::replace(replica, next);
                last.terminate();
                let ended = eventually("the replica ends", || last.ended());
                assert!(ended.contains("exit status: 0"), "{ended}");
                service.remove(&last);
                before.assert_alive(replica, before.kubeconfig.jti());
            }
            let walls = || replicas[0].owner.get("/members/roles").expect(200).json()["walls"] == true;
            eventually("a leader has found the policies it was built with", || walls().then_some(()));
            Given::by(&cluster, &replicas[0])
        };

        helm(&cluster, &["upgrade", RELEASE, CHART, "--reset-then-reuse-values"]);
        let after = roll(&new);
        cluster.wait_gone(&before.role, "brief");
        cluster.apply_member(&after.role, "brief", &json!({"duration": "60s"}));

        helm(&cluster, &["rollback", RELEASE, "1"]);
        roll(&old).end(&replicas[1]);
        // Version 0.1.0 finds no `jti` on its Secret.
        after.assert_alive(&replicas[0], "slot-0");
        cluster.wait_gone(&after.role, "brief");
        after.end(&replicas[0]);
        before.end(&replicas[1]);
    });
    println!("{} failed of {} at {:.0} a second", tally.failures.len(), tally.took.len(), tally.rate);
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
    replicas.iter_mut().for_each(Daypass::stop);

    // The values of the version before do not name what was added since.
    helm(&cluster, &["upgrade", RELEASE, CHART, "--reuse-values"]);
    let mut daypass = Daypass::start(&cluster, &new);
    Given::by(&cluster, &daypass).end(&daypass);
    daypass.stop();
}

/// Downloads a kubeconfig of this member from a replica.
#[track_caller]
fn download(cluster: &Cluster, member: &NewMember, daypass: &Daypass) -> Kubeconfig {
    let engineer = daypass.owner.with_basic(&member.id, &member.password);
    Kubeconfig::new(cluster, &engineer.get(&member.path("/kubeconfig")).expect(200))
}

/// Waits until a replica leads and has swept.
fn wait_swept(daypass: &Daypass) {
    eventually("the replica leads", || (daypass.metric("daypass_leader") > 0.5).then_some(()));
    let before = daypass.metric("daypass_sweeps_total");
    eventually("it has swept", || (daypass.metric("daypass_sweeps_total") >= before + 2.0).then_some(()));
}

#[test]
fn replicas_of_two_versions_keep_each_others_kubeconfigs() {
    let previous = previous();
    let cluster = Cluster::of_chart(Path::new(CHART));
    let (old, new) = (launch(Some(&previous.join("daypass"))), launch(None));
    let role = cluster.reader();

    // The old one leads.
    let mut former = Daypass::start(&cluster, &old);
    eventually("the old replica leads", || (former.metric("daypass_leader") > 0.5).then_some(()));
    let replica = Daypass::start(&cluster, &new);
    let member = NewMember::new(&replica.owner, &role, 2);
    let by_old = NewMember::new(&former.owner, &role, 2);
    let (one, two) = (download(&cluster, &member, &replica), download(&cluster, &member, &former));
    let (three, four) = (download(&cluster, &by_old, &former), download(&cluster, &by_old, &replica));
    wait_swept(&former);
    // What it lists, it keeps.
    assert_eq!(member.listed(&former.owner), ["slot-0", two.jti()]);
    assert_eq!(by_old.listed(&former.owner), [three.jti(), "slot-1"]);
    assert_eq!(by_old.listed(&replica.owner), [three.jti(), four.jti()]);
    let all = [&one, &two, &three, &four];
    assert!(all.iter().all(|kubeconfig| kubeconfig.is_accepted(&cluster)));

    // The new one leads, and takes the records over.
    former.stop();
    eventually("the records are complete", || (member.listed(&replica.owner) == [one.jti(), two.jti()]).then_some(()));
    wait_swept(&replica);
    assert_eq!(by_old.listed(&replica.owner), [three.jti(), four.jti()]);
    assert!(all.iter().all(|kubeconfig| kubeconfig.is_accepted(&cluster)));
    replica.owner.delete(&member.path(&format!("/kubeconfigs/{}", two.jti()))).expect(204);
    two.wait_refused(&cluster);

    // An old one beside it.
    let former = Daypass::start(&cluster, &old);
    let five = download(&cluster, &member, &former);
    eventually("the record is taken over", || {
        (member.listed(&replica.owner) == [one.jti(), five.jti()]).then_some(())
    });
    wait_swept(&replica);
    assert_eq!(member.listed(&replica.owner), [one.jti(), five.jti()], "a revoked one does not come back");
    former.owner.delete(&member.path(&format!("/kubeconfigs/{}", five.jti()))).expect(204);
    former.owner.post(&by_old.path("/credentials"), &json!({})).expect(201);
    assert_eq!(by_old.listed(&replica.owner), [""; 0]);
    for revoked in [&three, &four, &five] {
        revoked.wait_refused(&cluster);
    }
    assert!(one.is_accepted(&cluster));
    former.owner.delete(&member.path("")).expect(204);
    replica.owner.delete(&by_old.path("")).expect(204);
    cluster.wait_gone(&role, member.name());
    cluster.wait_gone(&role, by_old.name());
}

/// Runs helm on the release.
#[track_caller]
fn helm(cluster: &Cluster, args: &[&str]) {
    let output = cluster.chart.helm(&cluster.plane).args(args).args(["--namespace", RELEASE]).output().unwrap();
    assert!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
