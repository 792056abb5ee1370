//! nginx in front of the gateway, that passes TLS through or ends it and encrypts again.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_local::{Process, RELEASE, free_port, guarded};
use serde_json::json;

use super::{Gateways, config_map, file, succeed, watch_is_cut};
use crate::support::{Http, RawConnection, eventually};

/// In front of the first replica; killed when dropped.
struct Nginx {
    _process: Process,
    /// The address that passes TLS through.
    through: String,
    /// The address that encrypts again.
    again: String,
}

impl Nginx {
    fn start(gateways: &Gateways) -> Self {
        let cluster = gateways.cluster;
        let folder = cluster.fresh_folder("nginx");
        let secret = cluster.object(RELEASE, "secret", "daypass-tls").unwrap();
        for name in ["tls.crt", "tls.key"] {
            fs::write(folder.join(name), STANDARD.decode(secret["data"][name].as_str().unwrap()).unwrap()).unwrap();
        }
        let ports = [free_port().unwrap(), free_port().unwrap()].map(|port| port.to_string());
        let text = fs::read_to_string(file("nginx.conf")).unwrap();
        let text = text.replace("DAYPASS", gateways.first.url.strip_prefix("https://").unwrap());
        let text = text.replace("THROUGH_PORT", &ports[0]).replace("AGAIN_PORT", &ports[1]);
        fs::write(folder.join("nginx.conf"), text.replace("FOLDER", folder.to_str().unwrap())).unwrap();
        let mut command = guarded(Path::new("nginx"));
        command.arg("-c").arg(folder.join("nginx.conf"));
        let mut process = Process::start("nginx", command, &folder.join("log"), None).unwrap();
        let [through, again] = ports.map(|port| format!("127.0.0.1:{port}"));
        for address in [&through, &again] {
            eventually("nginx listens", || {
                process.ensure_alive().unwrap();
                std::net::TcpStream::connect(address).ok()
            });
        }
        Self { _process: process, through, again }
    }
}

/// Checks that a proxy passes on what exec upgrades to. The API server upgrades first and calls the kubelet then.
/// There is none here, and it says so over the WebSocket.
#[track_caller]
fn upgrades_through(gateways: &Gateways, proxy: &str) {
    let cluster = gateways.cluster;
    let guest = gateways.member(&gateways.executor());
    let name = gateways.pod(&guest, Some(free_port().unwrap()));
    let mut socket = RawConnection::to(proxy, &cluster.serving_certificate()).unwrap();
    socket.send(&format!(
        "GET /dp-1/gateway/api/v1/namespaces/default/pods/{name}/exec?command=a&stdout=1 HTTP/1.1\r\nHost: {proxy}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\
         Authorization: Bearer {}\r\n\r\n",
        guest.token,
    ));
    socket.read_to("HTTP/1.1 101 ");
    socket.read_to("connection refused");
}

/// Checks requests and a watch through a proxy.
#[track_caller]
fn works_and_is_cut_through(gateways: &Gateways, proxy: &str) {
    let cluster = gateways.cluster;
    let guest = gateways.member(&gateways.role());
    let url = format!("https://{proxy}");
    let kubeconfig = fs::read_to_string(&guest.file).unwrap().replace(&gateways.first.url, &url);
    let kubeconfig = cluster.save(&kubeconfig);
    let kubectl = |args: &[&str]| {
        let mut command = cluster.plane.kubectl();
        command.env("KUBECONFIG", &kubeconfig).args(args);
        command
    };
    assert!(succeed(&mut kubectl(&["auth", "whoami"])).contains(&guest.username()));
    let name = format!("cm-{}", guest.member.name());
    let manifest = cluster.save(&config_map(&name).to_string());
    assert!(succeed(kubectl(&["apply", "-f"]).arg(manifest)).contains("created"));
    let api = Http::new(&format!("{url}/dp-1/gateway"), &cluster.serving_certificate()).with_token(&guest.token);
    // More than the megabyte that nginx takes by default.
    let mut large = config_map(&format!("large-{}", guest.member.name()));
    large["binaryData"] = json!({"a": STANDARD.encode([7; 900_000])});
    api.post("/api/v1/namespaces/default/configmaps", &large).expect(201);
    api.delete(&format!("/api/v1/namespaces/default/configmaps/large-{}", guest.member.name())).expect(200);
    // nginx may neither decode nor shorten the path.
    let refused = api.get("/api/v1/namespaces/default/configmaps/%2e%2e%2fa").expect(403).json();
    assert_eq!(refused["details"], json!({"name": "..", "kind": "configmaps"}), "{refused}");

    watch_is_cut(gateways, &guest, &name, kubectl);
}

#[test]
#[ignore = "needs `make test-clients`"]
fn nginx_that_passes_tls_through_works_and_is_cut() {
    let gateways = Gateways::shared();
    let nginx = Nginx::start(gateways);
    upgrades_through(gateways, &nginx.through);
    works_and_is_cut_through(gateways, &nginx.through);
}

#[test]
#[ignore = "needs `make test-clients`"]
fn nginx_that_encrypts_again_works_and_is_cut() {
    let gateways = Gateways::shared();
    let nginx = Nginx::start(gateways);
    upgrades_through(gateways, &nginx.again);
    works_and_is_cut_through(gateways, &nginx.again);
}
