//! Daypass: temporary members of a Kubernetes cluster that end by themselves, on time.
//!
//! `domain` holds the rules, `crd` the Kubernetes types and `cluster` the Kubernetes I/O. `feed` is what a replica
//! knows from watches. `membership` and `access_tokens` are the use cases, `authn` finds out who asks. On top are
//! `controller` (the reaper), `api` (the REST API), `console` (its pages) and `gateway` (the reverse proxy), then
//! `cli` (arguments, and commands that are clients) and `serve`, which starts everything. `observability` and `clock`
//! are for all of them.
//!
//! Dependencies run one way: domain ← crd ← cluster ← feed ← {membership, access_tokens} ← authn ← {controller, api
//! ← console, gateway} ← cli ← serve.

pub mod access_tokens;
pub mod api;
pub mod authn;
pub mod cli;
pub mod clock;
pub mod cluster;
mod console;
pub mod controller;
pub mod crd;
pub mod domain;
pub mod feed;
pub mod gateway;
pub mod membership;
pub mod observability;
pub mod serve;

#[doc(hidden)]
pub use api::fuzz;
