//! Daypass against a real Kubernetes control plane, with a real `kubectl`.
//!
//! [`support`] says which cluster a test should take.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic, in its helpers as well"
)]

mod support;

mod api;
mod cluster;
mod console;
mod gateway;
mod ha;
mod install;
mod members;
mod oidc;
mod tokens;
mod walls;
