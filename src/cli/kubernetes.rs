//! Finds the API server: by a kubeconfig, read as kubectl reads it, or by the pod's service account.

use std::env;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::Context as _;
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

/// The port of a SOCKS proxy whose URL names none (RFC 1928).
const SOCKS_PORT: u16 = 1080;

/// The configuration for the Kubernetes API. Not kube's own (`Config::infer`), which fails on a missing file in
/// `$KUBECONFIG`, and takes the pod's service account after any error in a kubeconfig.
///
/// # Errors
/// When a kubeconfig is invalid, or there is neither a kubeconfig nor a pod's service account.
pub(crate) async fn kubernetes_config() -> anyhow::Result<Config> {
    let kubeconfig = merged()?;
    if kubeconfig.contexts.is_empty() && kubeconfig.clusters.is_empty() && kubeconfig.auth_infos.is_empty() {
        let found = Config::incluster();
        return found.context("found neither a kubeconfig nor a pod's service account to reach the Kubernetes API");
    }
    let proxy = cluster_proxy(&kubeconfig);
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // kube drops a proxy if its own host is in `NO_PROXY`, such as 127.0.0.1.
    config.proxy_url = proxy.or_else(|| env_proxy(&config.cluster_url)).map(|proxy| proxy_uri(&proxy)).transpose()?;
    Ok(config)
}

/// The files of `$KUBECONFIG`, else `~/.kube/config`, merged by the rules of client-go's `ClientConfigLoadingRules`: a
/// missing file is skipped, the first file that sets something wins, and no file at all is an empty kubeconfig.
fn merged() -> Result<Kubeconfig, KubeconfigError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let files: Vec<PathBuf> = match set("KUBECONFIG") {
        Some(list) => env::split_paths(&list).filter(|file| !file.as_os_str().is_empty()).collect(),
        None => set("HOME").map(|home| PathBuf::from(home).join(".kube/config")).into_iter().collect(),
    };
    let mut merged = Kubeconfig::default();
    for file in files {
        let mut next = match Kubeconfig::read_from(&file) {
            Err(KubeconfigError::ReadConfig(error, _)) if error.kind() == ErrorKind::NotFound => continue,
            read => read?,
        };
        // kubectl writes an empty one into a file without a current context.
        next.current_context = next.current_context.filter(|context| !context.is_empty());
        merged = merged.merge(next)?;
    }
    Ok(merged)
}

/// The `proxy-url` of the current context's cluster.
fn cluster_proxy(kubeconfig: &Kubeconfig) -> Option<String> {
    let current = kubeconfig.contexts.iter().find(|named| Some(&named.name) == kubeconfig.current_context.as_ref())?;
    let name = &current.context.as_ref()?.cluster;
    let cluster = kubeconfig.clusters.iter().find(|named| named.name == *name)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

/// The proxy that the environment names for this server. Like Go, never for this machine itself.
fn env_proxy(server: &Uri) -> Option<String> {
    let set =
        |names: [&str; 2]| names.into_iter().find_map(|name| env::var(name).ok().filter(|text| !text.is_empty()));
    let proxy = set(["HTTPS_PROXY", "https_proxy"])?;
    let no_proxy = set(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let local = format!("localhost,127.0.0.0/8,::1,{no_proxy}");
    Matcher::builder().https(proxy.as_str()).no(local).build().intercept(server)?;
    Some(if proxy.contains("://") { proxy } else { format!("http://{proxy}") })
}

fn proxy_uri(url: &str) -> anyhow::Result<Uri> {
    let invalid = || format!("invalid URL of a proxy: {url}");
    let uri: Uri = url.parse().with_context(invalid)?;
    // The client would take the port of http.
    let (Some("socks5"), Some(authority), None) = (uri.scheme_str(), uri.authority(), uri.port()) else {
        return Ok(uri);
    };
    format!("socks5://{authority}:{SOCKS_PORT}").parse().with_context(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socks_proxy_without_a_port_listens_on_1080() {
        let uri = |url| proxy_uri(url).unwrap().to_string();
        assert_eq!(uri("socks5://127.0.0.1"), "socks5://127.0.0.1:1080/");
        assert_eq!(uri("socks5://[::1]:9"), "socks5://[::1]:9/");
        assert_eq!(uri("http://proxy"), "http://proxy/");
        assert!(proxy_uri("socks5://a b").is_err());
    }
}
