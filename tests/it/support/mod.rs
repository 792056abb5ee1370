//! What tests run against. There are three fixtures:
//!
//! - [`Cluster`]: a real control plane with the chart installed.
//! - [`Daypass`]: a Daypass process, with a client that has all rights on members.
//! - [`WallTest`]: kubectl calls by several people that an admission policy refuses or lets pass.
//!
//! Take the first cluster that fits. A new one costs ten seconds of CPU time.
//!
//! | The test… | takes |
//! |---|---|
//! | works in roles and with callers of its own | [`Cluster::shared`], with its Daypass |
//! | the same, and tries what the policies refuse | [`WallTest::shared`] |
//! | writes what schema and policies refuse, or needs no garbage collector | [`Cluster::without_controllers`] |
//! | changes what all roles share: the release, policies, cluster-wide RBAC | [`Cluster::exclusive`] |
//! | stops Daypass or parts of the control plane, or takes rights away from Daypass | [`Cluster::breakable`] |
//! | leaves a cluster that nobody can use afterwards | [`Cluster::own`] |
//!
//! Tests run at the same time. On a shared cluster a test starts another Daypass ([`Daypass::with_args`]) if it needs
//! other options; only one replica leads, and it is usually the shared one.

mod api;
mod breakable;
mod browser;
mod calls;
mod cluster;
mod curl;
mod daypass;
mod http;
mod http2;
mod identity_provider;
mod jwt;
mod member;
mod objects;
mod openid_provider;
pub mod policies;
mod pool;
mod proxy;
mod raw;
mod socks5;
pub mod tokens;
mod wall_test;
mod webhooks;
pub mod without_controllers;

pub use api::collection;
pub use breakable::{leaders, replica};
pub use browser::Browser;
pub use calls::Call;
pub use cluster::{CHART, Cluster, Role};
pub use curl::Curl;
pub use daypass::{Daypass, Launch, plain_client, send_signal};
pub use http::{Answer, Http};
pub use http2::{Http2, Stranger};
pub use identity_provider::IdentityProvider;
pub use jwt::claims;
pub use member::{Kubeconfig, NewMember};
pub use objects::{Leftovers, now, time, wait_until};
pub use openid_provider::{OpenIdProvider, oidc_args};
pub use pool::{Pool, PoolGuard};
pub use proxy::{Fault, Proxy};
pub use raw::RawConnection;
pub use socks5::Socks5;
pub use wall_test::{Attempt, DAYPASS, WallTest, attack, legit};
pub use webhooks::Webhooks;

use std::time::{Duration, Instant};

/// The longest that a test waits for anything. Long enough for a slow machine: no test asserts it.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Polls until `poll` returns something. Panics after [`DEADLINE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(20);
    loop {
        if let Some(answer) = poll() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(pause);
        pause = (pause * 5 / 4).min(Duration::from_millis(200));
    }
}
