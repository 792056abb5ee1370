//! Addresses and names in a sandbox: the node, the API server, Services and pods.
//!
//! 198.18.0.0/15 is reserved for benchmarking networks (RFC 2544), so no real host has one of these addresses.

/// The node's address. The API server and the DNS server listen on it too.
pub(crate) const NODE_ADDRESS: &str = "198.18.0.1";
pub(crate) const NODE_NAME: &str = "node";
pub(crate) const POD_RANGE: &str = "198.18.1.0/24";
pub(crate) const SERVICE_RANGE: &str = "198.18.128.0/24";
/// The Service `kubernetes`, which always gets the first address of the range.
const API_SERVICE: &str = "198.18.128.1";

/// The API server's public name in the sandbox, on port 443.
pub const API_NAME: &str = "api.node.test";
/// Daypass's public name in the sandbox. It resolves to the Service `daypass` in the namespace `daypass`.
pub const DAYPASS_NAME: &str = "daypass.node.test";

/// The API server's names and addresses in a sandbox, for its certificate.
pub(crate) const API_HOSTS: [&str; 5] =
    [NODE_ADDRESS, API_SERVICE, "kubernetes.default.svc.cluster.local", API_NAME, NODE_NAME];
