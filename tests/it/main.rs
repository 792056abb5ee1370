//! The whole of Daypass against a real Kubernetes control plane, with a real `kubectl`.
//!
//! One control plane with one Daypass serves all tests; each makes role namespaces of its own. Those that take something away start a
//! control plane for themselves.

mod support;

mod flow;
