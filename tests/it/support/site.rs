//! Where Daypass, the API server or etcd may be taken away.

use daypass_local::Component;

use super::{Daypass, Lab, Launch, Pool, Taken, send_signal};

/// A control plane of which one test at a time takes something away.
pub fn site() -> Taken<Lab> {
    static SITES: Pool<Lab> = Pool::new();
    let site = SITES.take(Lab::without_walls);
    // An API server that has just been started knows no bindings for a moment.
    site.expect_refusals();
    // What a test that failed has left away; the others are running, which is an error here.
    for component in [Component::Etcd, Component::ApiServer, Component::ControllerManager] {
        let _ = site.plane.start_component(component);
    }
    send_signal(site.plane.pid(Component::ApiServer).unwrap(), "CONT");
    site
}

/// A replica of this name.
pub fn replica(name: &str) -> Launch {
    Launch { args: vec!["--identity".to_owned(), name.to_owned()], ..Launch::default() }
}

/// The leaders among some replicas, by their own account.
pub fn leaders(replicas: &[&Daypass]) -> Vec<u32> {
    replicas.iter().filter(|it| it.metric("daypass_leader") > 0.5).map(|it| it.pid()).collect()
}
