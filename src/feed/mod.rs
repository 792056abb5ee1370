//! What each replica knows of the cluster from watches.

mod held_rbac;
mod rights;

pub use rights::RightsView;
