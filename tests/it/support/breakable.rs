//! Clusters where a test stops Daypass, the API server or etcd.

use daypass_local::{Component, Shutdown};
use serde_json::{Value, json};

use super::{Cluster, DAYPASS, Daypass, Launch, Pool, PoolGuard, eventually, send_signal};

impl Cluster {
    /// A cluster without the admission policies whose components a test may stop, pause or restart. There are two, and
    /// one test at a time uses each. A test stops its Daypass and restores what it changed.
    pub fn breakable() -> PoolGuard<Self> {
        static POOL: Pool<Cluster> = Pool::new(2);
        let cluster = POOL.take(Self::own_without_walls);
        // A restarted API server does not know any bindings for a moment.
        cluster.expect_refusals();
        cluster
    }

    /// Takes the right to write the Lease away from Daypass, so that no replica leads and no controller runs. Returns
    /// the rules for [`Cluster::let_lead`].
    pub fn keep_from_leading(&self) -> Vec<Value> {
        let rules = self.object("daypass", "role", "daypass").unwrap()["rules"].as_array().unwrap().clone();
        let less: Vec<Value> = rules.iter().filter(|rule| rule["resources"] != json!(["leases"])).cloned().collect();
        self.set_rules(&less, false);
        rules
    }

    /// Restores the rules.
    pub fn let_lead(&self, rules: &[Value]) {
        self.set_rules(rules, true);
    }

    /// Replaces Daypass's rules in its own namespace.
    fn set_rules(&self, rules: &[Value], may_lead: bool) {
        self.patch("daypass", "role", "daypass", &json!({"rules": rules}));
        let lease = json!({
            "group": "coordination.k8s.io", "resource": "leases", "name": "daypass", "namespace": "daypass",
            "verb": "update",
        });
        eventually("the rules are in force", || (self.api.allows(DAYPASS, &lease) == may_lead).then_some(()));
    }

    /// Restarts the API server with these flags in addition to the usual ones.
    pub fn restart_apiserver(&self, args: &[&str]) {
        self.plane.set_apiserver_args(args.iter().map(|arg| (*arg).to_owned()).collect());
        // A controller manager that has just started gives up without an API server.
        let manages = self.plane.pid(Component::ControllerManager).is_some();
        if manages {
            self.plane.stop_component(Component::ControllerManager, Shutdown::Kill).unwrap();
        }
        self.plane.stop_component(Component::ApiServer, Shutdown::Graceful).unwrap();
        self.plane.start_component(Component::ApiServer).unwrap();
        if manages {
            self.plane.start_component(Component::ControllerManager).unwrap();
        }
    }

    /// Pauses the API server: connections stay open and nothing is answered.
    pub fn pause_apiserver(&self) {
        send_signal(self.plane.pid(Component::ApiServer).unwrap(), "STOP");
    }

    pub fn resume_apiserver(&self) {
        send_signal(self.plane.pid(Component::ApiServer).unwrap(), "CONT");
    }
}

/// Options for a replica of this name.
pub fn replica(name: &str) -> Launch {
    Launch { args: vec!["--identity".to_owned(), name.to_owned()], ..Launch::default() }
}

/// The process ids of the replicas that say they lead.
pub fn leaders(replicas: &[&Daypass]) -> Vec<u32> {
    replicas.iter().filter(|it| it.metric("daypass_leader") > 0.5).map(|it| it.pid()).collect()
}
