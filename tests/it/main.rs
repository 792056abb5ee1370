//! The whole of Daypass against a real Kubernetes control plane, with a real `kubectl`.
//!
//! One control plane with one Daypass serves all tests; each makes role namespaces of its own. Those that take something away start a
//! control plane for themselves.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic, in its helpers as well"
)]

mod support;

mod authorization;
mod authorizers;
mod browser;
mod chart;
mod crd;
mod denials;
mod engineer;
mod expiry;
mod flow;
mod flow_control;
mod generated;
mod ha_leader;
mod ha_replicas;
mod ha_rolling;
mod ha_token;
mod hostile;
mod hostile_objects;
mod idempotency;
mod kill;
mod kubeconfigs;
mod lint;
mod openapi;
mod outage;
mod overload;
mod partial;
mod promptness;
mod reaper;
mod rights;
mod routes;
mod secrets;
mod selftest;
mod shipped_roles;
mod shutdown;
mod silence;
mod strangers;
mod sweep;
mod tls;
mod tokens_attempts;
mod tokens_command;
mod tokens_deletion;
mod tokens_expiry;
mod tokens_identity;
mod tokens_limit;
mod tokens_owners;
mod tokens_privileges;
mod tokens_rotation;
mod tokens_schemes;
mod tokens_scopes;
mod tokens_secrets;
mod tokens_sessions;
mod tokens_users;
mod tokens_walls;
mod uninstall;
mod validation;
mod walls_certificates;
mod walls_cluster;
mod walls_kubernetes;
mod walls_members;
mod walls_namespaces;
mod walls_off;
mod walls_older;
mod walls_persistence;
mod walls_roles;
