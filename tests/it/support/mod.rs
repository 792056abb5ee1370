//! A control plane with Daypass in it, and what tests do with it.

mod attempt;
pub mod bare;
mod curl;
mod daypass;
mod http;
mod http2;
mod jwt;
mod lab;
mod member;
mod objects;
mod pool;
mod proxy;
mod raw;
mod site;
pub mod tokens;
mod webhooks;

pub use attempt::{DAYPASS, Stage, attack, legit};
pub use curl::Curl;
pub use daypass::{Daypass, Launch, send_signal};
pub use http::{Answer, Http};
pub use http2::{Http2, Stranger};
pub use jwt::claims;
pub use lab::{Lab, Role};
pub use member::{Created, Kubeconfig};
pub use objects::{Remains, now, time, wait_until};
pub use pool::{Pool, Taken};
pub use proxy::{Proxy, Trap};
pub use raw::Raw;
pub use site::{leaders, replica, site};
pub use webhooks::Webhooks;

use std::time::{Duration, Instant};

/// How long anything may take that is waited for. Never part of what a test claims.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Polls until there is an answer.
pub fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = poll() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
