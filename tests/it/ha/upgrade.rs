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

    /// Checks that a replica knows it, that nothing was lost, and that more can be given.
    #[track_caller]
    fn assert_alive(&self, daypass: &Daypass) {
        let engineer = daypass.owner.with_basic(&self.member.id, &self.member.password);
        let listed = self.member.listed(&engineer);
        assert_eq!(listed, [self.kubeconfig.jti()]);
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
                before.assert_alive(replica);
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
        after.assert_alive(&replicas[0]);
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

/// Runs helm on the release.
#[track_caller]
fn helm(cluster: &Cluster, args: &[&str]) {
    let output = cluster.chart.helm(&cluster.plane).args(args).args(["--namespace", RELEASE]).output().unwrap();
    assert!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
