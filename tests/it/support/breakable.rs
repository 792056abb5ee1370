//! Clusters where a test stops Daypass, the API server or etcd.

use daypass_local::{Component, Shutdown};

use super::{Cluster, Daypass, Launch, Pool, PoolGuard, send_signal};

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

    /// Restarts the API server with these flags in addition to the usual ones.
    pub fn restart_apiserver(&self, args: &[&str]) {
        self.plane.set_apiserver_args(args.iter().map(|arg| (*arg).to_owned()).collect());
        self.plane.stop_component(Component::ApiServer, Shutdown::Graceful).unwrap();
        self.plane.start_component(Component::ApiServer).unwrap();
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
