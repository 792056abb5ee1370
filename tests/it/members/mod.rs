//! A member from its creation to its end, and what it leaves behind.

mod crd;
mod engineer;
mod expiry;
mod flow;
mod gateway_kubeconfigs;
mod hostile_objects;
mod idempotency;
mod kill;
mod kubeconfigs;
mod lists;
mod max_duration;
mod policies;
mod promptness;
mod quotas;
mod reaper;
mod sweep;
