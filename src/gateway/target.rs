//! The target of a request: which ones are the gateway's, and where they go. The path stays as it arrived.

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri, Version};

/// The gateway's address, and the API server's behind it.
#[derive(Debug, Clone)]
pub struct Prefix {
    prefix: String,
    /// The prefix as clients see it.
    public: String,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    /// The path of the API server's address, without a slash at the end.
    base: String,
    /// A host of the gateway's own, where the whole path is for the API server.
    own_host: Option<String>,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it goes: always to the API server.
    pub uri: Uri,
    /// The path and query at the API server, without the path of its address.
    pub asked: PathAndQuery,
    /// Whether the client's path had the prefix, and not the gateway's own host.
    pub has_prefix: bool,
}

/// Why a target is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// It is not a path (RFC 9112, section 3.2.1), or not the gateway's.
    #[error("the target of a request to the gateway must be a path")]
    NotAPath,
    /// It is too long for an address.
    #[error("the path is too long")]
    TooLong,
}

impl Prefix {
    /// The gateway of this data plane, in front of the API server at this address.
    ///
    /// # Errors
    /// If the address has no scheme or no host.
    pub fn new(data_plane_id: &str, api_server: &Uri) -> Result<Self, http::Error> {
        let authority = api_server.authority().map_or("", Authority::as_str);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let prefix = format!("/{data_plane_id}/gateway");
        Ok(Self {
            public: prefix.clone(),
            prefix,
            scheme: api_server.scheme_str().unwrap_or("none!").parse()?,
            authority: host.parse()?,
            host: host.parse()?,
            base: api_server.path().trim_end_matches('/').to_owned(),
            own_host: None,
        })
    }

    /// The same, for clients that see it below this path: a proxy in front removes that.
    #[must_use]
    pub fn below(self, path: &str) -> Self {
        Self { public: format!("{}{}", path.trim_end_matches('/'), self.prefix), ..self }
    }

    /// The same, and all of this host.
    #[must_use]
    pub fn with_own_host(self, own_host: Option<String>) -> Self {
        Self { own_host, ..self }
    }

    /// The API server's `Host`.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Whether a request is for the gateway.
    pub fn matches<B>(&self, request: &Request<B>) -> bool {
        self.rest(request).is_some()
    }

    /// Where a request goes. The bytes after the prefix stay as they are: whoever decodes or normalizes them sees
    /// another path than the API server. (hyper refuses control characters and what is not UTF-8, and cuts off
    /// fragments.)
    ///
    /// # Errors
    /// [`BadTarget`]: a `CONNECT`, an absolute address over HTTP/1, or another path.
    pub fn target<B>(&self, request: &Request<B>) -> Result<Target, BadTarget> {
        let uri = request.uri();
        // HTTP/2 always has a scheme and an authority, in fields of their own.
        let has_address = uri.scheme().is_some() || uri.authority().is_some();
        // hyper would send a CONNECT on as one.
        if request.method() == Method::CONNECT || (has_address && request.version() < Version::HTTP_2) {
            return Err(BadTarget::NotAPath);
        }
        let rest = self.rest(request).ok_or(BadTarget::NotAPath)?;
        let has_prefix = uri.path_and_query().is_some_and(|path| path.as_str().len() > rest.len());
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{slash}{rest}", self.base))
            .build()
            .map_err(|_| BadTarget::TooLong)?;
        let asked = PathAndQuery::try_from(format!("{slash}{rest}")).map_err(|_| BadTarget::TooLong)?;
        Ok(Target { uri, asked, has_prefix })
    }

    /// Where the client finds what the API server has at a path, for the `Location` of an answer. Without this, a
    /// redirect leads out of the gateway. `None`: it stays as it is, since it names another server, or a path beside
    /// its own.
    pub fn location(&self, location: &HeaderValue, has_prefix: bool) -> Option<HeaderValue> {
        let rest = location.to_str().ok()?.strip_prefix(&self.base)?;
        // Two slashes would begin with a host.
        let rest = rest.strip_prefix('/').filter(|rest| !rest.starts_with('/'))?;
        HeaderValue::try_from(format!("{}/{rest}", if has_prefix { &self.public } else { "" })).ok()
    }

    /// What follows the prefix. At the gateway's own host, that is everything.
    fn rest<'a, B>(&self, request: &'a Request<B>) -> Option<&'a str> {
        let path = request.uri().path_and_query()?.as_str();
        let rest = path.strip_prefix(&self.prefix);
        let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        rest.or_else(|| (path.starts_with('/') && self.is_at_own_host(request)).then_some(path))
    }

    /// Whether the client asks the gateway's own host, on any port: a proxy may listen on another one.
    fn is_at_own_host<B>(&self, request: &Request<B>) -> bool {
        let Some(own) = &self.own_host else { return false };
        let named = || request.headers().get(HOST)?.to_str().ok()?.parse().ok();
        let asked: Option<Authority> = request.uri().authority().cloned().or_else(named);
        asked.is_some_and(|asked| asked.host().eq_ignore_ascii_case(own))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(api_server: &'static str) -> Prefix {
        Prefix::new("dp-1", &Uri::from_static(api_server)).unwrap()
    }

    fn request(method: Method, uri: &str, version: Version) -> Request<()> {
        Request::builder().method(method).uri(uri).version(version).body(()).unwrap()
    }

    fn target(path: &str) -> Result<Target, BadTarget> {
        prefix("https://10.0.0.1:6443").target(&request(Method::GET, path, Version::HTTP_11))
    }

    #[test]
    fn path_after_the_prefix_reaches_the_api_server_unchanged() {
        for rest in [
            "/",
            "/api/v1/pods?watch=true&labelSelector=a%3Db,c!%3Dd",
            "//api//v1/",
            "//evil.example/api",
            "/../../api",
            "/api/v1/../../x/./y",
            "/%2e%2e/%2E%2e%2fapi",
            "/api%2Fv1/%00/%zz",
            "/a;b=c/@:!$&'()*+,=~",
            "/{\"x\"}|\\^",
            "/api/ü?ü",
            "/?",
            "/a??b?c/d/../e",
            "/http://evil.example/",
        ] {
            let found = target(&format!("/dp-1/gateway{rest}")).unwrap();
            assert_eq!(found.uri.to_string(), format!("https://10.0.0.1:6443{rest}"));
            assert_eq!(found.uri.path_and_query(), Some(&found.asked));
            assert_eq!(found.asked.as_str(), rest);
        }
    }

    #[test]
    fn empty_path_becomes_a_slash() {
        assert_eq!(target("/dp-1/gateway").unwrap().asked, "/");
        assert_eq!(target("/dp-1/gateway?a=b/c").unwrap().asked, "/?a=b/c");
        assert_eq!(target("/dp-1/gateway#f").unwrap().asked, "/");
    }

    #[test]
    fn other_paths_are_not_the_gateways() {
        for path in [
            "/",
            "/dp-1",
            "/dp-1/gatewayx",
            "/dp-1/gateway%2fapi",
            "/dp-1/gateway;x",
            "/dp-1%2Fgateway/api",
            "/%64p-1/gateway/api",
            "/DP-1/gateway/api",
            "//dp-1/gateway/api",
            "/x/../dp-1/gateway/api",
            "/dp-2/gateway/api",
            "/?/dp-1/gateway/",
            "/processing/data-planes/dp-1/gateway/api",
            "*",
        ] {
            assert!(!prefix("https://a").matches(&request(Method::GET, path, Version::HTTP_11)), "{path}");
            assert_eq!(target(path), Err(BadTarget::NotAPath), "{path}");
        }
    }

    #[test]
    fn only_a_path_is_a_target() {
        let prefix = prefix("https://a");
        let refused = |method, uri: &str, version| prefix.target(&request(method, uri, version)).is_err();
        for uri in ["http://evil.example/dp-1/gateway/api", "https://a/dp-1/gateway/api"] {
            assert!(refused(Method::GET, uri, Version::HTTP_11), "{uri}");
            assert!(refused(Method::GET, uri, Version::HTTP_10), "{uri}");
            // Its scheme and authority are fields of their own, and change nothing.
            let found = prefix.target(&request(Method::GET, uri, Version::HTTP_2)).unwrap();
            assert_eq!(found.uri, "https://a/api");
        }
        for uri in ["evil.example:443", "/dp-1/gateway/api"] {
            assert!(refused(Method::CONNECT, uri, Version::HTTP_11), "{uri}");
            assert!(refused(Method::CONNECT, uri, Version::HTTP_2), "{uri}");
        }
        assert!(refused(Method::OPTIONS, "*", Version::HTTP_11));
    }

    #[test]
    fn everything_at_the_gateways_own_host_is_for_the_api_server() {
        let prefix = prefix("https://a").with_own_host(Some("gw.example".to_owned()));
        let asked = |host: &str, path: &str| {
            let mut request = request(Method::GET, path, Version::HTTP_11);
            request.headers_mut().insert(HOST, host.parse().unwrap());
            prefix.target(&request).map(|target| target.uri.to_string())
        };
        for host in ["gw.example", "GW.example:8443"] {
            for path in ["/", "/api?x", "//api", "/processing/data-planes/dp-1/members", "/../%2e"] {
                assert_eq!(asked(host, path), Ok(format!("https://a{path}")), "{host} {path}");
            }
            // A client that keeps the path may use either.
            assert_eq!(asked(host, "/dp-1/gateway/api"), Ok("https://a/api".to_owned()));
        }
        for host in ["daypass.example", "gw.example.evil", "x.gw.example", "gw.example.", ""] {
            assert_eq!(asked(host, "/api"), Err(BadTarget::NotAPath), "{host}");
        }
        assert_eq!(asked("gw.example", "*"), Err(BadTarget::NotAPath));
        let mut own = request(Method::GET, "/dp-1x", Version::HTTP_11);
        own.headers_mut().insert(HOST, HeaderValue::from_static("gw.example"));
        assert!(!prefix.target(&own).unwrap().has_prefix);
        // HTTP/2 has the host in a field of its own, and the first of two wins.
        let mut over_http2 = request(Method::GET, "https://gw.example/api", Version::HTTP_2);
        assert_eq!(prefix.target(&over_http2).unwrap().uri, "https://a/api");
        *over_http2.uri_mut() = Uri::from_static("https://daypass.example/api");
        over_http2.headers_mut().insert(HOST, HeaderValue::from_static("gw.example"));
        assert!(!prefix.matches(&over_http2));
        let absolute = request(Method::GET, "https://gw.example/api", Version::HTTP_11);
        assert!(prefix.matches(&absolute) && prefix.target(&absolute).is_err());
    }

    #[test]
    fn path_of_the_api_servers_address_comes_first() {
        let prefix = prefix("https://me:secret@rancher.example/k8s/clusters/c-1/");
        let found = prefix.target(&request(Method::GET, "/dp-1/gateway/api?x", Version::HTTP_11)).unwrap();
        assert_eq!(found.uri, "https://rancher.example/k8s/clusters/c-1/api?x");
        assert_eq!(found.asked, "/api?x");
        assert_eq!(prefix.host(), "rancher.example");
    }

    #[test]
    fn redirect_stays_below_the_prefix() {
        let location = |prefix: &Prefix, location: &str, has_prefix| {
            let moved = prefix.location(&location.parse().unwrap(), has_prefix);
            moved.map(|moved| moved.to_str().unwrap().to_owned())
        };
        let (plain, based) = (prefix("https://a"), prefix("https://a/k8s/c-1/"));
        for (there, here, at_own_host) in
            [("/api/?a=b", "/dp-1/gateway/api/?a=b", "/api/?a=b"), ("/", "/dp-1/gateway/", "/")]
        {
            assert_eq!(location(&plain, there, true).as_deref(), Some(here));
            assert_eq!(location(&plain, there, false).as_deref(), Some(at_own_host));
            assert_eq!(location(&based, &format!("/k8s/c-1{there}"), true).as_deref(), Some(here));
            assert_eq!(location(&based, &format!("/k8s/c-1{there}"), false).as_deref(), Some(at_own_host));
        }
        let below = prefix("https://a").below("/tools/");
        assert_eq!(location(&below, "/api", true).as_deref(), Some("/tools/dp-1/gateway/api"));
        assert_eq!(location(&below, "/api", false).as_deref(), Some("/api"));
        for elsewhere in ["//evil.example/api", "https://evil.example/api", "https://a/api", "x", "?a", ""] {
            assert_eq!(location(&plain, elsewhere, true), None, "{elsewhere}");
        }
        for beside in ["/login", "/k8s/c-11/api", "/k8s/c-1", "/k8s/c-1//evil.example"] {
            assert_eq!(location(&based, beside, true), None, "{beside}");
        }
        let has_prefix = |path: &str| target(path).unwrap().has_prefix;
        assert!(has_prefix("/dp-1/gateway") && has_prefix("/dp-1/gateway/api") && has_prefix("/dp-1/gateway?a"));
    }

    #[test]
    fn address_without_host_is_refused() {
        for address in ["/", "/api", "host:443"] {
            assert!(Prefix::new("dp-1", &Uri::from_static(address)).is_err(), "{address}");
        }
    }

    #[test]
    fn path_that_is_too_long_with_the_base_is_refused() {
        let found = prefix(concat!("https://a/", "0123456789012345678901234567890123456789")).target(&request(
            Method::GET,
            &format!("/dp-1/gateway/{}", "x".repeat(65_500)),
            Version::HTTP_11,
        ));
        assert_eq!(found, Err(BadTarget::TooLong));
    }

    proptest! {
        #[test]
        fn any_path_stays_as_it_is_and_goes_to_one_host(rest in "[/?][!-~&&[^#<>`]]{0,60}") {
            if let Ok(uri) = format!("/dp-1/gateway{rest}").parse::<Uri>() {
                let found = prefix("https://a:1").target(&request(Method::GET, &uri.to_string(), Version::HTTP_11));
                let found = found.unwrap().uri;
                let sent = if rest.starts_with('/') { rest } else { format!("/{rest}") };
                prop_assert_eq!(found.authority().unwrap().as_str(), "a:1");
                prop_assert_eq!(found.path_and_query().unwrap().as_str(), sent);
            }
        }
    }
}
