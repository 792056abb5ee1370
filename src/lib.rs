//! Daypass: temporary members of a Kubernetes cluster, which end by themselves.
//!
//! `domain` holds the rules, `crd` the Kubernetes types, `cluster` the Kubernetes I/O, `authn` the rate limits, `controller`
//! the reaper, `api` the REST API and `serve` its connections; `runtime` puts them together. Dependencies run one way:
//! domain ← crd ← cluster ← authn ← {controller, api} ← serve ← runtime.

pub mod api;
pub mod audit;
pub mod authn;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod controller;
pub mod crd;
pub mod domain;
pub mod lint;
pub mod metrics;
pub mod rest;
pub mod runtime;
pub mod selftest;
pub mod serve;
pub mod telemetry;
pub mod tls;
pub mod token_command;

#[doc(hidden)]
pub use api::fuzz;
