//! Requests on the objects of one type, as with kube's `Api`, but with bounded and tolerant reading of the answers.
//!
//! An answer has a size limit, and one hostile object in it never hides another ([`crate::crd::Object`]).

use std::future::Future;
use std::time::Duration;

use futures::AsyncReadExt as _;
use futures::io::AsyncRead;
use kube::Resource;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{Request, request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Cluster, Error, ErrorKind, optional};
use crate::crd::{Object, Page};

/// The largest answer about one object, in bytes. etcd stores up to 1.5 MiB per object; JSON escapes make it larger.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;
/// The largest page of a list, in bytes. Daypass reads several at the same time.
const MAX_PAGE: u64 = 4 * 1024 * 1024;
/// The most objects in a page. If a page is too large (4 MiB), Daypass asks for half as many.
pub const PAGE: usize = 500;

/// The waits between the tries of a creation that conflicts over a quota.
const QUOTA_PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];

/// A request from kube, or the reason why kube could not build it.
type Built = Result<http::Request<Vec<u8>>, request::Error>;

/// A page of a list.
pub(super) struct ListPage<T> {
    pub(super) found: Vec<T>,
    /// The list's resource version, the same on each of its pages.
    pub(super) version: String,
    pub(super) is_last: bool,
}

/// The objects of a type, in one namespace or in the whole cluster.
pub(super) struct Objects<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) request: Request,
    pub(super) metadata_only: bool,
}

impl Cluster {
    /// The objects of a type in a namespace; `None` for all namespaces, and for cluster-scoped types.
    pub(super) fn objects<K: Resource<DynamicType = ()>>(&self, namespace: Option<&str>) -> Objects<'_> {
        Objects { cluster: self, request: Request::new(K::url_path(&(), namespace)), metadata_only: false }
    }
}

impl Objects<'_> {
    /// The same objects, but the API server sends only their metadata.
    pub(super) fn metadata(self) -> Self {
        Self { metadata_only: true, ..self }
    }

    /// Reads the object of this name from the API server; `None` if it does not exist.
    pub(super) async fn get(&self, call: &'static str, of: &str, name: &str) -> Result<Option<Object>, Error> {
        let params = GetParams::default();
        let get = if self.metadata_only { Request::get_metadata } else { Request::get };
        optional(self.ask(call, of, get(&self.request, name, &params)).await)
    }

    /// Lists all objects and converts each with `read`. Fetches them in pages: apart from what `read` keeps, this
    /// takes bounded memory, however many or large the objects are.
    pub(super) async fn list<T>(
        &self,
        call: &'static str,
        of: &str,
        selector: Option<&str>,
        mut read: impl FnMut(Object) -> T,
    ) -> Result<Vec<T>, Error> {
        let mut params = ListParams { label_selector: selector.map(str::to_owned), ..ListParams::default() };
        let mut found = Vec::new();
        loop {
            let page = self.page(call, of, &mut params, &mut read).await?;
            found.extend(page.found);
            if page.is_last {
                return Ok(found);
            }
        }
    }

    /// Reads the next page of a list. If it is too large, asks for fewer objects from then on.
    pub(super) async fn page<T>(
        &self,
        call: &'static str,
        of: &str,
        params: &mut ListParams,
        mut read: impl FnMut(Object) -> T,
    ) -> Result<ListPage<T>, Error> {
        let list = if self.metadata_only { Request::list_metadata } else { Request::list };
        loop {
            // A single object may be as large as any answer.
            let limit = *params.limit.get_or_insert(PAGE as u32);
            let most = if limit == 1 { MAX_ANSWER } else { MAX_PAGE };
            let Some(text) = self.read(call, of, list(&self.request, params), most).await? else {
                if limit == 1 {
                    return Err(too_large(call, of));
                }
                params.limit = Some(limit / 2);
                continue;
            };
            let page = Page::parse(&text).map_err(|_| unreadable(call, of))?;
            let found = page.objects().map(|object| object.map(&mut read).map_err(|_| unreadable(call, of)));
            let found = found.collect::<Result<_, _>>()?;
            let (next, version) = page.continuation();
            let is_last = next.is_empty();
            params.continue_token = Some(next);
            return Ok(ListPage { found, version, is_last });
        }
    }

    /// Creates an object.
    pub(super) async fn create(&self, call: &'static str, of: &str, object: &impl Serialize) -> Result<Object, Error> {
        self.create_with(call, of, object, &PostParams::default()).await
    }

    /// Runs admission for an object as on creation, but stores nothing.
    pub(super) async fn dry_run(&self, call: &'static str, of: &str, object: &impl Serialize) -> Result<(), Error> {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        self.create_with(call, of, object, &params).await.map(drop)
    }

    /// A creation conflicts only when the API server's copy of the namespace's quota is stale, mostly after an etcd
    /// outage. Nothing was created then, so a retry is safe.
    async fn create_with(
        &self,
        call: &'static str,
        of: &str,
        object: &impl Serialize,
        params: &PostParams,
    ) -> Result<Object, Error> {
        let create = || self.ask(call, of, json(object).and_then(|body| self.request.create(params, body)));
        for pause in QUOTA_PAUSES {
            match create().await {
                Err(error) if error.is_conflict() => tokio::time::sleep(pause).await,
                result => return result,
            }
        }
        create().await
    }

    /// Creates a token for the service account of this name.
    pub(super) async fn create_token(
        &self,
        call: &'static str,
        of: &str,
        name: &str,
        request: &impl Serialize,
    ) -> Result<Object, Error> {
        let params = PostParams::default();
        let token = |body| self.request.create_subresource("token", name, &params, body);
        self.ask(call, of, json(request).and_then(token)).await
    }

    /// Replaces the object of this name.
    pub(super) async fn replace(
        &self,
        call: &'static str,
        of: &str,
        name: &str,
        object: &impl Serialize,
    ) -> Result<Object, Error> {
        let params = PostParams::default();
        self.ask(call, of, json(object).and_then(|body| self.request.replace(name, &params, body))).await
    }

    /// Changes the object of this name by a JSON merge patch (RFC 7396).
    pub(super) async fn patch(&self, call: &'static str, of: &str, name: &str, body: &Value) -> Result<Object, Error> {
        let (params, patch) = (PatchParams::default(), Patch::Merge(body));
        let request = match self.metadata_only {
            true => self.request.patch_metadata(name, &params, &patch),
            false => self.request.patch(name, &params, &patch),
        };
        self.ask(call, of, request).await
    }

    /// Changes the status of the object of this name by a JSON merge patch.
    pub(super) async fn patch_status(
        &self,
        call: &'static str,
        of: &str,
        name: &str,
        body: &Value,
    ) -> Result<Object, Error> {
        let (params, patch) = (PatchParams::default(), Patch::Merge(body));
        self.ask(call, of, self.request.patch_subresource("status", name, &params, &patch)).await
    }

    /// Deletes the object of this name if it still has this UID. Kubernetes' garbage collector deletes its dependents
    /// in the background.
    pub(super) async fn delete(&self, call: &'static str, of: &str, name: &str, uid: &str) -> Result<(), Error> {
        let only = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams::background().preconditions(only);
        self.ask_and_ignore(call, of, self.request.delete(name, &params)).await
    }

    /// Deletes the object of this name if it is still exactly this version. Returns whether finalizers hold it.
    pub(super) async fn delete_version(
        &self,
        call: &'static str,
        of: &str,
        name: &str,
        version: Preconditions,
    ) -> Result<bool, Error> {
        let params = DeleteParams::background().preconditions(version);
        // The answer is the object if it is still there, otherwise a `Status`.
        Ok(self.ask(call, of, self.request.delete(name, &params)).await?.is_deleting())
    }

    async fn ask(&self, call: &'static str, of: &str, request: Built) -> Result<Object, Error> {
        let text = self.read(call, of, request, MAX_ANSWER).await?.ok_or_else(|| too_large(call, of))?;
        Object::parse(&text).map_err(|_| unreadable(call, of))
    }

    /// Sends the request and reads the answer; `None` if it has more than `most` bytes.
    fn read(
        &self,
        call: &'static str,
        of: &str,
        request: Built,
        most: u64,
    ) -> impl Future<Output = Result<Option<String>, Error>> {
        let ask = async move {
            let mut answer = self.cluster.client.request_stream(request.map_err(kube::Error::BuildRequest)?).await?;
            read_to(&mut answer, most).await.map_err(kube::Error::ReadEvents)
        };
        self.cluster.call(call, of, ask)
    }

    /// Sends the request and discards the answer. Reads it to the end, so that the connection can be reused. The
    /// answer to a deletion contains the deleted objects and can be of any size.
    async fn ask_and_ignore(&self, call: &'static str, of: &str, request: Built) -> Result<(), Error> {
        let ask = async {
            let answer = self.cluster.client.request_stream(request.map_err(kube::Error::BuildRequest)?).await?;
            futures::io::copy(answer, &mut futures::io::sink()).await.map_err(kube::Error::ReadEvents)
        };
        self.cluster.call(call, of, ask).await.map(drop)
    }
}

/// The text of an answer; `None` if it has more than `most` bytes. Replaces invalid UTF-8: the API server returns
/// `managedFields` byte for byte.
async fn read_to(answer: &mut (impl AsyncRead + Unpin), most: u64) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    answer.take(most + 1).read_to_end(&mut bytes).await?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= most);
    Ok(fits.then(|| text_of(bytes)))
}

/// Decodes UTF-8 and replaces invalid bytes.
pub(super) fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn json(object: &impl Serialize) -> Result<Vec<u8>, request::Error> {
    serde_json::to_vec(object).map_err(request::Error::SerializeBody)
}

/// Decodes an answer as its type.
pub(super) fn decode<K: DeserializeOwned>(call: &'static str, of: &str, object: &Object) -> Result<K, Error> {
    object.decode().map_err(|why| Error::new(call, of, ErrorKind::UnreadableAnswer, &why.to_string()))
}

fn unreadable(call: &'static str, of: &str) -> Error {
    Error::new(call, of, ErrorKind::UnreadableAnswer, "malformed response")
}

fn too_large(call: &'static str, of: &str) -> Error {
    Error::new(call, of, ErrorKind::UnreadableAnswer, "response too large")
}
