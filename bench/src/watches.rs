//! Open watches of one object, each with a thread that reads it.

use std::io::Read as _;
use std::thread;

use reqwest::blocking::Response;

use crate::http::Http;
use crate::load::closed;
use crate::report::Report;
use crate::sizes::Sizes;

/// The object, one of [`Bystander`](crate::rest::Bystander)'s.
pub(crate) const OBJECT: &str = "/api/v1/namespaces/default/configmaps/bystander";
const WATCH: &str =
    "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=600&fieldSelector=metadata.name%3Dbystander";
/// How many a connection carries. 100 are allowed.
pub(crate) const ON_A_CONNECTION: usize = 50;
const CLIENTS: usize = 16;
/// For a thread that only reads.
const STACK: usize = 256 * 1024;

/// Opens this many through these clients, and returns how many it could. `read` gets the number of the watch's client,
/// and the watch after its first byte.
pub(crate) fn open(
    clients: &[Http],
    count: usize,
    sizes: &Sizes,
    report: &mut Report,
    read: impl Fn(usize, Response) + Clone + Send + Sync + 'static,
) -> usize {
    let open = |number: usize| {
        let (client, read) = (number % clients.len(), read.clone());
        let mut stream = clients[client].watch(WATCH)?;
        // The object as it is comes first: now the watch is established.
        stream.read_exact(&mut [0])?;
        thread::Builder::new().stack_size(STACK).spawn(move || read(client, stream))?;
        Ok(())
    };
    let opened = closed(CLIENTS, count, sizes.until, &open);
    report.failures("opening watches", &opened);
    opened.taken.len()
}
