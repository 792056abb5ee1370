//! What stands behind the API server and answers through it, such as a pod by way of `services/proxy`: a member may
//! control every byte of it. Here it is an aggregated API, which may be on this machine's own address.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_local::RELEASE;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use tokio::runtime::Runtime;

use super::limits::at;
use super::readers::bearer;
use super::refusals::refused;
use super::{Gateways, Guest};
use crate::support::{Answer, Cluster, DEADLINE, Daypass, RawConnection, Stranger, eventually};

const GROUP: &str = "/apis/proxied.test/v1";

/// What it answers, by the last part of the path.
const ANSWERS: [(&str, &str); 7] = [
    (
        "commands",
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nX-Kept: a\r\n\
         X-Accel-Redirect: /internal\r\nX-Accel-Buffering: yes\r\nX-Sendfile: /etc/passwd\r\n\
         X-Envoy-Immediate-Health-Check-Fail: true\r\n\
         Set-Cookie: a=b\r\nImpersonate-User: admin\r\nConnection: close\r\n\r\nok",
    ),
    (
        "partial",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         1f\r\n{\"type\":\"ADDED\",\"object\":{}}\n{\"\r\n4\r\ntype\r\n",
    ),
    // The last chunk never comes.
    ("broken", "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
    // It reads no body.
    ("early", "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge"),
    (
        "hints",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nSet-Cookie: a=b\r\n\r\n\
         HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nfinal",
    ),
    (
        "upgrade",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSet-Cookie: a=b\r\n\
         Sec-WebSocket-Protocol: mine\r\n\r\nfirst",
    ),
    ("flood", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
];

type Wire = StreamOwned<ServerConnection, TcpStream>;

/// The heads of requests whose connection has ended.
type Heads = Arc<Mutex<Vec<String>>>;

/// A cluster with that API, its two gateways, and what it was asked.
struct Backed {
    gateways: Gateways,
    heads: Heads,
}

impl Backed {
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Backed> = OnceLock::new();
        SHARED.get_or_init(|| {
            let cluster: &'static Cluster = Box::leak(Box::new(Cluster::own()));
            let start = || Daypass::with_args(cluster, &["--kubeconfig-mode=gateway", "--gateway-audit=all"]);
            let gateways = Gateways { cluster, first: start(), second: start() };
            let (port, heads) = serve(cluster);
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "proxied", "namespace": "default"},
                "spec": {"type": "ExternalName", "externalName": "localhost"},
            });
            let api = json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": "v1.proxied.test"},
                "spec": {
                    "group": "proxied.test", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
                    "insecureSkipTLSVerify": true,
                    "service": {"namespace": "default", "name": "proxied", "port": port},
                },
            });
            [service, api].iter().for_each(|object| drop(cluster.apply(&object.to_string())));
            eventually("the API is there", || (cluster.api.get(GROUP).status == 200).then_some(()));
            Self { gateways, heads }
        })
    }

    fn member(&self) -> Guest {
        let rules = json!([{"apiGroups": ["proxied.test"], "resources": ["*"], "verbs": ["get", "update", "watch"]}]);
        self.gateways.member(&self.gateways.cluster.role(rules))
    }
}

/// Serves on this machine, with Daypass's certificate. Returns the port.
fn serve(cluster: &Cluster) -> (u16, Heads) {
    let secret = cluster.object(RELEASE, "secret", "daypass-tls").unwrap();
    let file = |name: &str| STANDARD.decode(secret["data"][name].as_str().unwrap()).unwrap();
    let certificates = CertificateDer::pem_slice_iter(&file("tls.crt")).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(&file("tls.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(certificates, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, heads) = (listener.local_addr().unwrap().port(), Heads::default());
    let asked = Arc::clone(&heads);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, heads) = (Arc::clone(&config), Arc::clone(&heads));
            thread::spawn(move || {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                let mut wire = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(()) = wire.read_exact(&mut byte) else { return };
                    head.extend(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let _ = answer(&head, &mut wire);
                heads.lock().unwrap_or_else(PoisonError::into_inner).push(head);
            });
        }
    });
    (port, asked)
}

fn answer(head: &str, wire: &mut Wire) -> std::io::Result<()> {
    let path = head.split(' ').nth(1).unwrap();
    let list =
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "proxied.test/v1", "resources": []});
    let list = list.to_string();
    let list = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{list}",
        list.len()
    );
    let name = path.rsplit('/').next().unwrap().split('?').next().unwrap();
    let found = ANSWERS.iter().find(|(of, _)| *of == name).map(|(_, bytes)| *bytes);
    wire.write_all(found.unwrap_or(&list).as_bytes())?;
    wire.flush()?;
    let mut buffer = [0; 8192];
    if name == "flood" {
        loop {
            wire.write_all(&buffer)?;
        }
    }
    while ["early", "partial", "upgrade"].iter().any(|it| name.starts_with(it)) {
        let Ok(read @ 1..) = wire.read(&mut buffer) else { break };
        // Who has upgraded gets back what it sends, until one of them is cut off.
        if name == "upgrade" {
            wire.write_all(&buffer[..read])?;
            wire.flush()?;
        }
    }
    wire.conn.send_close_notify();
    wire.flush()
}

#[test]
fn headers_that_command_a_proxy_do_not_pass() {
    let guest = Backed::shared().member();
    let answer = guest.api.get(&format!("{GROUP}/things/commands")).expect(200);
    assert_eq!((answer.text.as_str(), answer.header("x-kept")), ("ok", "a"));
    for name in answer.headers.keys().map(|name| name.as_str()) {
        let is_command = ["x-accel-", "x-sendfile", "x-envoy-", "impersonate-"].iter().any(|it| name.starts_with(it));
        assert!(!is_command && name != "set-cookie", "{name}");
    }
}

#[test]
fn answer_to_a_body_that_nobody_reads_arrives() {
    let guest = Backed::shared().member();
    for size in [0, 10, 100_000, 2_000_000] {
        let request = guest.api.request("PUT", &format!("{GROUP}/things/early"));
        let answer = Answer::of(request.body(vec![b'a'; size]));
        assert_eq!((answer.status, answer.text.as_str()), (413, "large"), "{size}");
    }
}

#[test]
fn informational_answers_are_no_answers() {
    let guest = Backed::shared().member();
    for _ in 0..2 {
        let answer = guest.api.get(&format!("{GROUP}/things/hints")).expect(200);
        assert_eq!(answer.text, "final");
        assert!(answer.header("set-cookie").is_empty(), "{:?}", answer.headers);
    }
}

#[test]
fn answer_that_breaks_off_does_not_look_whole() {
    let (backed, guest) = (Backed::shared(), Backed::shared().member());
    let broken = format!("{GROUP}/things/broken");
    assert!(Answer::try_of(guest.api.request("GET", &broken)).is_err());
    let stranger = Stranger::new(backed.gateways.cluster, &backed.gateways.first);
    Runtime::new().unwrap().block_on(async {
        let mut connection = stranger.http2(1 << 16).await.unwrap();
        let (path, authorization) = (format!("/dp-1/gateway{broken}"), bearer(&guest));
        // It may be reset before its head is sent.
        let Ok(answer) = connection.get(&path, &[("authorization", &authorization)]).await else { return };
        let mut body = answer.into_body();
        let mut chunk = body.data().await;
        while let Some(Ok(_)) = chunk {
            chunk = body.data().await;
        }
        assert!(chunk.is_some_and(|chunk| chunk.is_err()), "it looks whole");
    });
}

/// An event arrives in pieces, and the rest never comes.
#[test]
fn watch_that_is_cut_within_an_event_does_not_look_whole() {
    let (backed, guest) = (Backed::shared(), Backed::shared().member());
    let mut connection = RawConnection::connect(backed.gateways.cluster, &backed.gateways.first);
    connection.send(&format!(
        "GET /dp-1/gateway{GROUP}/partial?watch=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
        guest.token
    ));
    connection.read_to("HTTP/1.1 200 ");
    connection.read_to("type\r\n");
    backed.gateways.first.owner.delete(&guest.member.path("")).expect(204);
    let rest = connection.rest();
    assert!(!rest.contains("ERROR") && !rest.contains("0\r\n\r\n"), "{rest}");
}

/// A stream of which Kubernetes knows nothing: whatever a node, a pod or a Service speaks.
fn upgraded(backed: &Backed, daypass: &Daypass, guest: &Guest, name: &str) -> RawConnection {
    let mut connection = RawConnection::connect(backed.gateways.cluster, daypass);
    let token = STANDARD.encode(&guest.token).trim_end_matches('=').to_owned();
    connection.send(&format!(
        "GET /dp-1/gateway{GROUP}/things/{name} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\
         Connection: Upgrade, X-Named\r\nX-Named: a\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{token}, mine\r\n\r\n",
        guest.token
    ));
    connection.read_to("HTTP/1.1 101 ");
    connection
}

#[test]
fn place_of_an_upgraded_stream_that_nobody_reads_is_given_to_others() {
    let backed = Backed::shared();
    let args = ["--kubeconfig-mode=gateway", "--gateway-streams=1", "--gateway-audit=all"];
    let daypass = Daypass::with_args(backed.gateways.cluster, &args);
    let (guest, other) = (backed.member(), backed.member());
    let _unread = upgraded(backed, &daypass, &guest, "flood");
    let api = at(&other, &daypass, backed.gateways.cluster);
    let watch = format!("{GROUP}/things?watch=1&timeoutSeconds=1");
    refused(&api.get(&watch), 429, "too many requests are open");
    eventually("there is a place", || (api.get(&watch).status == 200).then_some(()));
    let closed = eventually("its end is recorded", || {
        daypass.audit(&guest.member.id).into_iter().find(|event| event["event"] == "STREAM_CLOSED")
    });
    assert_eq!(closed["reason"], "UNREAD", "{closed}");
}

#[test]
fn unknown_upgrade_is_cut_and_gets_no_token_of_the_member() {
    let (backed, guest) = (Backed::shared(), Backed::shared().member());
    let mut connection = upgraded(backed, &backed.gateways.first, &guest, "upgrade");
    connection.read_to("first");
    connection.send("echo");
    connection.read_to("echo");
    backed.gateways.first.owner.delete(&guest.member.path("")).expect(204);
    let is_it = |head: &&String| head.contains("/things/upgrade");
    let heads = || backed.heads.lock().unwrap_or_else(PoisonError::into_inner).iter().find(is_it).cloned();
    let head = eventually("its connection ends", heads).to_ascii_lowercase();
    assert!(!head.contains("bearer") && !head.contains(&guest.token) && !head.contains("x-named"), "{head}");
    assert!(head.contains("sec-websocket-protocol: mine\r\n"), "{head}");
}

#[test]
fn redirect_of_the_api_server_stays_below_the_gateway() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    // kubectl asks for a schema by its hash, and the API server sends it on if that has changed meanwhile.
    let schema = guest.api.get("/openapi/v3/version?hash=OLD").expect(200);
    assert!(schema.json()["openapi"].is_string(), "{}", schema.text);
}
