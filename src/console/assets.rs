//! The stylesheet, the script, the icon and the server's clock.

use std::sync::LazyLock;

use axum::extract::{Path, State as Extract};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use sha2::{Digest as _, Sha256};

use crate::api::State;
use crate::api::problem::{Code, Problem};
use crate::domain::hex::hex;

/// A file that pages load. Its path names its contents, so browsers may keep it for ever.
pub(super) struct Asset {
    pub(super) path: String,
    name: String,
    media_type: &'static str,
    contents: &'static str,
}

pub(super) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("css", "text/css; charset=utf-8", include_str!("assets/console.css")));
pub(super) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("js", "text/javascript; charset=utf-8", include_str!("assets/console.js")));

pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("svg", "image/svg+xml", include_str!("assets/icon.svg")));

impl Asset {
    fn new(extension: &str, media_type: &'static str, contents: &'static str) -> Self {
        let digest = hex(&Sha256::digest(contents)[..8]);
        let name = format!("{digest}.{extension}");
        Self { path: format!("{}/assets/{name}", super::ROOT), name, media_type, contents }
    }
}

pub(super) async fn asset(Path(name): Path<String>) -> Result<Response, Problem> {
    let asset = [&*STYLE, &*SCRIPT, &*ICON].into_iter().find(|asset| asset.name == name);
    let asset = asset.ok_or_else(|| Problem::new(Code::NotFound))?;
    let headers = [(CONTENT_TYPE, asset.media_type), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((headers, asset.contents).into_response())
}

/// The server's clock in milliseconds since 1970, by which pages count down: a browser's clock can be wrong.
pub(super) async fn time(Extract(state): Extract<State>) -> Response {
    let now = state.clock.now().timestamp_millis().to_string();
    ([(CONTENT_TYPE, "text/plain"), (CACHE_CONTROL, "no-store")], now).into_response()
}
