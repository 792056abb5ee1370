//! Runs real Kubernetes control planes on this machine, any number side by side, for the tests and `make run`.
//!
//! A control plane is etcd, kube-apiserver and kube-controller-manager. Nothing in this crate is part of the product.
//! Each module uses only modules that come later in this list:
//! - `run`, `env`: the commands behind `make run` and `make env`
//! - `node`, `release`: a node for a control plane, and Daypass's chart in it
//! - `control_plane`: starts, watches and stops the components
//! - `components`, `sandbox`: the components' flags, and the namespaces of a control plane with a node
//! - `kubeconfig`, `pki`: files for authentication
//! - `tools`, `go`: the programs, and how they are built
//! - `state`, `process`, `port`: the state folder, child processes, free ports

mod components;
mod control_plane;
mod env;
mod go;
mod kubeconfig;
mod node;
mod pki;
mod port;
mod process;
mod release;
mod run;
mod sandbox;
mod state;
mod tools;

pub use components::Component;
pub use control_plane::{ControlPlane, Options, Shutdown};
pub use env::print_env;
pub use node::Node;
pub use port::free_port;
pub use process::{Process, guarded};
pub use release::{Chart, RELEASE};
pub use run::{DEFAULT_STATE, RunOptions, run};
pub use sandbox::{API_NAME, DAYPASS_NAME, missing};
pub use state::{fresh_state_dir, holder, stop_holder, write_private};
pub use tools::Tools;
