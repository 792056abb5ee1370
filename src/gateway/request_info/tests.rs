//! Tests what is read from a request. The cases are those of Kubernetes' own test, and hostile ones.

use proptest::prelude::*;

use super::*;

fn read(method: &str, asked: &str, is_upgrade: bool) -> RequestInfo {
    RequestInfo::of(&method.parse().unwrap(), &asked.parse().unwrap(), is_upgrade)
}

/// `verb group/version namespace resource/subresource name`, with `-` for what is absent.
fn summary(method: &str, asked: &str) -> String {
    let call = read(method, asked, false).call;
    let text = |part: Option<String>| part.unwrap_or_else(|| "-".to_owned());
    if let Some(path) = call.path {
        return format!("{} {path}", call.verb);
    }
    let subresource = call.subresource.map(|subresource| format!("/{subresource}")).unwrap_or_default();
    let (group, version, resource) = (text(call.api_group), text(call.api_version), text(call.resource));
    let (namespace, name) = (text(call.namespace), text(call.name));
    format!("{} {group}/{version} {namespace} {resource}{subresource} {name}", call.verb)
}

#[test]
fn resource_requests_are_read_as_kubernetes_does() {
    for (method, asked, expected) in [
        ("GET", "/api/v1/namespaces", "list -/v1 - namespaces -"),
        ("GET", "/api/v1/namespaces/other", "get -/v1 other namespaces other"),
        ("GET", "/api/v1/namespaces/other/pods", "list -/v1 other pods -"),
        ("GET", "/api/v1/namespaces/other/pods/", "list -/v1 other pods -"),
        ("GET", "/api/v1/namespaces/other/pods/foo", "get -/v1 other pods foo"),
        ("HEAD", "/api/v1/namespaces/other/pods/foo", "get -/v1 other pods foo"),
        ("HEAD", "/api/v1/pods", "list -/v1 - pods -"),
        ("GET", "/api/v1/pods", "list -/v1 - pods -"),
        ("GET", "/api/v1/namespaces/other/pods/foo/status", "get -/v1 other pods/status foo"),
        ("GET", "/api/v1/namespaces/other/pods/foo/proxy/a/b", "get -/v1 other pods/proxy foo"),
        ("PUT", "/api/v1/namespaces/other/finalize", "update -/v1 other namespaces/finalize other"),
        ("PUT", "/api/v1/namespaces/other/status", "update -/v1 other namespaces/status other"),
        ("PUT", "/api/v1/namespaces/other/pods/foo", "update -/v1 other pods foo"),
        ("PATCH", "/api/v1/namespaces/other/pods/foo", "patch -/v1 other pods foo"),
        ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete -/v1 other pods foo"),
        ("DELETE", "/api/v1/namespaces/other/pods", "deletecollection -/v1 other pods -"),
        ("POST", "/api/v1/namespaces/other/pods", "create -/v1 other pods -"),
        ("POST", "/apis/extensions/v1/namespaces/other/pods/p/x", "create extensions/v1 other pods/x p"),
        ("GET", "/apis/apps/v1/deployments", "list apps/v1 - deployments -"),
        ("GET", "/api/v1/watch/pods", "watch -/v1 - pods -"),
        ("GET", "/api/v1/watch/namespaces/other/pods", "watch -/v1 other pods -"),
        ("GET", "/api/v1/watch/namespaces/other/pods/foo", "watch -/v1 other pods foo"),
        ("GET", "/apis/a/v1/watch/namespaces/other/b", "watch a/v1 other b -"),
        ("GET", "/api/v1/proxy/namespaces/other/pods/foo/a/b", "proxy -/v1 other pods foo"),
        ("GET", "/api/v1/pods?watch=true", "watch -/v1 - pods -"),
        ("GET", "/api/v1/pods?watch=1", "watch -/v1 - pods -"),
        ("GET", "/api/v1/pods?watch", "watch -/v1 - pods -"),
        ("GET", "/api/v1/pods?watch=junk", "watch -/v1 - pods -"),
        ("GET", "/api/v1/pods?%77atch=true", "watch -/v1 - pods -"),
        ("GET", "/api/v1/pods?watch=false&watch=true", "list -/v1 - pods -"),
        ("GET", "/api/v1/pods?watch=FALSE", "list -/v1 - pods -"),
        ("GET", "/api/v1/pods?watch=0", "list -/v1 - pods -"),
        ("GET", "/api/v1/namespaces/a/pods/b?watch=true", "get -/v1 a pods b"),
        ("POST", "/api/v1/pods?watch=true", "create -/v1 - pods -"),
        ("GET", "/api/v1/pods?watch=1&fieldSelector=metadata.name%3Dp", "watch -/v1 - pods p"),
        ("GET", "/api/v1/watch/pods?fieldSelector=metadata.name=p", "watch -/v1 - pods -"),
        ("GET", "/api/v1/pods?fieldSelector=a=b,metadata.name==p", "list -/v1 - pods p"),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name!=p", "list -/v1 - pods -"),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name=a/b", "list -/v1 - pods -"),
        ("DELETE", "/api/v1/pods?fieldSelector=metadata.name=p", "deletecollection -/v1 - pods -"),
        ("BREW", "/api/v1/pods", "other -/v1 - pods -"),
        // Kubernetes decodes first, and splits then.
        ("GET", "/api%2Fv1/n%61mespaces/a%2Fpods/b", "get -/v1 a pods b"),
        ("GET", "//api/v1/pods//", "list -/v1 - pods -"),
        ("GET", "/api/v1//pods", "get -/v1 - - pods"),
        ("GET", "/api/v1/../pods", "get -/v1 - .. pods"),
    ] {
        assert_eq!(summary(method, asked), expected, "{method} {asked}");
    }
}

#[test]
fn other_paths_are_shown_as_they_are() {
    for (method, asked, expected) in [
        ("GET", "/", "get /"),
        ("GET", "/version", "get /version"),
        ("GET", "/api", "get /api"),
        ("GET", "/api/v1", "get /api/v1"),
        ("GET", "/apis/apps/v1/?timeout=32s", "get /apis/apps/v1/"),
        ("POST", "/healthz/%e2%80%ae", "post /healthz/\\u{202e}"),
        ("BREW", "/openapi/v3/apis/apps/v1/x", "other /openapi/v3/apis/apps/v1/x"),
        ("GET", "/API/v1/pods", "get /API/v1/pods"),
    ] {
        assert_eq!(summary(method, asked), expected, "{method} {asked}");
    }
}

#[test]
fn kind_says_how_a_stream_is_cut() {
    let pod = "/api/v1/namespaces/a/pods/p";
    for (asked, is_upgrade, expected) in [
        (format!("{pod}/exec?command=sh"), true, StreamKind::Exec),
        (format!("{pod}/attach"), true, StreamKind::Attach),
        (format!("{pod}/portforward?ports=80"), true, StreamKind::PortForward),
        (format!("{pod}/proxy/"), true, StreamKind::Upgrade),
        (format!("{pod}/log?follow=true"), true, StreamKind::LogFollow),
        ("/api/v1/pods?watch=1".to_owned(), true, StreamKind::Watch),
        ("/api/v1/pods".to_owned(), true, StreamKind::Upgrade),
        ("/version".to_owned(), true, StreamKind::Upgrade),
        ("/apis/x.io/v1/namespaces/a/pods/p/exec".to_owned(), true, StreamKind::Upgrade),
        (format!("{pod}/exec?command=sh"), false, StreamKind::Ordinary),
        (format!("{pod}/proxy/a?follow=1"), false, StreamKind::Proxy),
        ("/api/v1/namespaces/a/services/https:s:443/proxy".to_owned(), false, StreamKind::Proxy),
        (format!("{pod}/log?follow=true"), false, StreamKind::LogFollow),
        (format!("{pod}/log?follow=1"), false, StreamKind::LogFollow),
        ("/apis/x.io/v1/namespaces/a/builds/b/log?follow=true".to_owned(), false, StreamKind::LogFollow),
        ("/apis/x.io/v1/clusters/c/proxy/api/v1/pods".to_owned(), false, StreamKind::Proxy),
        ("/apis/x.io/v1/proxy/clusters".to_owned(), false, StreamKind::Ordinary),
        ("/debug/pprof/profile?seconds=90".to_owned(), false, StreamKind::Proxy),
        ("/debug/api_priority_and_fairness/dump_requests".to_owned(), false, StreamKind::Ordinary),
        (format!("{pod}/log?follow"), false, StreamKind::LogFollow),
        (format!("{pod}/log?follow=false"), false, StreamKind::Ordinary),
        (format!("{pod}/log"), false, StreamKind::Ordinary),
        (format!("{pod}?follow=true"), false, StreamKind::Ordinary),
        ("/api/v1/pods?watch=1".to_owned(), false, StreamKind::Watch),
        ("/api/v1/watch/pods".to_owned(), false, StreamKind::Watch),
        ("/api/v1/pods".to_owned(), false, StreamKind::Ordinary),
    ] {
        let kind = read("GET", &asked, is_upgrade).kind();
        assert_eq!(kind, expected, "{asked}");
        assert_eq!(kind.is_stream(), kind.label() != "ordinary");
    }
}

#[test]
fn verbs_that_change_nothing_are_no_writes() {
    for (method, asked, expected) in [
        ("GET", "/api/v1/pods", false),
        ("GET", "/api/v1/pods?watch=1", false),
        ("HEAD", "/version", false),
        ("OPTIONS", "/version", false),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", true),
        ("DELETE", "/api/v1/pods", true),
        ("BREW", "/api/v1/pods", true),
        ("OPTIONS", "/api/v1/pods", true),
    ] {
        assert_eq!(read(method, asked, false).is_write(), expected, "{method} {asked}");
    }
}

#[test]
fn exec_shows_container_and_command() {
    let asked = "/api/v1/namespaces/a/pods/p/exec?command=sh&command=-c&command=echo+%22a%20b%22%1b%5b2J%E2%80%AE%ff\
                 &container=c%0a&stdin=true";
    let call = read("POST", asked, true).call;
    assert_eq!(call.command, ["sh", "-c", "echo \"a b\"\\u{1b}[2J\\u{202e}\u{fffd}"]);
    assert_eq!(call.container.as_deref(), Some("c\\u{a}"));
    let elsewhere = read("POST", "/api/v1/namespaces/a/pods/p/eviction?command=sh&container=c", false).call;
    assert_eq!((elsewhere.command.len(), elsewhere.container), (0, None));
    let log = read("GET", "/api/v1/namespaces/a/pods/p/log?container=c&command=sh", false).call;
    assert_eq!((log.command.len(), log.container.as_deref()), (0, Some("c")));
}

#[test]
fn texts_of_a_client_are_bounded() {
    let exec = "/api/v1/namespaces/a/pods/p/exec?";
    for words in ["command=".to_owned() + &"x".repeat(60_000), "command=&".repeat(7000), "command=%1b&".repeat(5000)] {
        let command = read("POST", &format!("{exec}{words}"), true).call.command;
        let len: usize = command.iter().map(|word| word.len() + 1).sum();
        assert!(len <= MAX_TEXT + 2 * "…".len() + 3, "{len}");
        assert!(command.last().unwrap().ends_with('…'), "{command:?}");
    }
    let long = read("GET", &format!("/apis/g/v1/namespaces/{0}/{0}/{0}/{0}", "ü".repeat(3000)), false).call;
    for text in [long.namespace, long.resource, long.name, long.subresource] {
        assert_eq!(text.unwrap(), format!("{}…", "ü".repeat(MAX_NAME / 2)));
    }
    assert_eq!(shown("abc", 3), "abc");
    assert_eq!(shown("abcd", 3), "abc…");
    assert_eq!(shown("a\u{1b}", 3), "a\\u…");
}

proptest! {
    #[test]
    fn nothing_that_is_shown_hides_or_is_too_long(
        method in "[A-Z]{1,9}",
        asked in "/(api|apis/g)/v1(/(namespaces|watch|pods|exec|%[0-9a-f]{2}|[!-\"$-~ü]{0,9})){0,7}\
                  (\\?(command=(%[0-9a-f]{2}){0,9}&){0,3})?",
        is_upgrade: bool,
    ) {
        let Ok(asked) = asked.parse::<PathAndQuery>() else { return Ok(()) };
        let Ok(method) = method.parse::<Method>() else { return Ok(()) };
        let info = RequestInfo::of(&method, &asked, is_upgrade);
        let shown = serde_json::to_string(info.audit()).unwrap();
        prop_assert_eq!(escape_hidden(&shown), shown.clone());
        prop_assert!(shown.len() < 12 * MAX_TEXT);
        prop_assert_eq!(info.kind().is_stream() || !is_upgrade, true);
    }
}
