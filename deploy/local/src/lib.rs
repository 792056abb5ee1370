//! A real Kubernetes control plane on this machine: etcd, kube-apiserver and kube-controller-manager, any number side by side.
//!
//! For the tests and for `make run`. Nothing here is part of the product.

mod components;
mod control_plane;
mod env;
mod go;
mod kubeconfig;
mod node;
mod pki;
mod process;
mod release;
mod run;
mod state;
mod tools;

pub use components::Component;
pub use control_plane::{ControlPlane, Options, Shutdown, free_port};
pub use env::print_env;
pub use node::{API_NAME, DAYPASS_NAME, Node, missing};
pub use process::{Process, guarded};
pub use release::{Chart, RELEASE};
pub use run::{DEFAULT_STATE, RunOptions, run};
pub use state::{fresh_state_dir, holder, stop_holder};
pub use tools::Tools;
