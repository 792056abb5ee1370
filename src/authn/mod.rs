//! Keeping those who authenticate, or try to, from costing more than they should. Counted at each replica; knows
//! no web framework.

mod checks;
mod denials;
mod rate_limit;
mod recent;

pub use checks::{Checks, Turn};
pub use denials::Denials;
pub use rate_limit::{Count, RateLimit};
pub use recent::Digest;
