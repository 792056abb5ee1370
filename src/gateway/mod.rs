//! The gateway: a reverse proxy in front of the API server, for the kubeconfigs of members.
//!
//! It admits a request on the feed, forwards it with a token of the member's service account, and cuts whatever is
//! open the moment the membership ends. It never impersonates and never forwards without a decided credential.

mod admission;
mod body;
mod cut;
mod exchange;
mod failure;
mod forward;
pub mod frames;
pub mod headers;
pub mod limits;
mod minting;
mod pieces;
mod registry;
pub mod request_info;
pub mod status;
pub mod target;
pub mod tombstones;
mod trust;
mod upgrade;
mod upstream;
mod uses;
#[cfg(test)]
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use chrono::TimeDelta;
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, Version};
use ipnet::IpNet;
use kube::Config;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use self::admission::{Admission, Denied};
use self::body::RequestBody;
use self::exchange::{Admitted, Exchange};
use self::failure::Failure;
use self::forward::{Client, Forward};
use self::headers::{Ours, Refused, Upgrade};
use self::limits::{Held, Limits, TooMany};
use self::minting::{Minting, NoToken};
use self::registry::{Registry, Why};
use self::request_info::{RequestInfo, StreamKind};
use self::target::Prefix;
use self::trust::Trust;
use self::upstream::Upstream;
use self::uses::Uses;
use crate::authn::{Capacity, Connection, client_address, weight};
use crate::clock::{Clock, Entropy};
use crate::cluster::{Cluster, with_audit_ids};
use crate::domain::gateway_token::{GatewayToken, Pass};
use crate::domain::lifetime::rfc3339;
use crate::domain::member::Member;
use crate::feed::Feed;
use crate::membership::Membership;
use crate::observability::audit::{Audit, Origin};
use crate::observability::gateway_metrics::GatewayLabels;
use crate::observability::metrics::Metrics;

/// How often a stopping replica looks whether something is open.
const LOOK: Duration = Duration::from_millis(250);
/// The `Origin` of a watch over WebSocket. No browser's is ever passed on.
const ORIGIN: HeaderValue = HeaderValue::from_static("https://kubernetes.default.svc");
/// The outcome of a request that was forwarded, in metrics.
const FORWARDED: &str = "forwarded";
/// How long before its end a member is warned.
const WARNING: TimeDelta = TimeDelta::minutes(15);

/// The gateway's configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data plane's id.
    pub data_plane_id: String,
    /// The path of the public URL, which a proxy in front of Daypass removes.
    pub public_path: String,
    /// A host of the gateway's own, where everything is for it.
    pub own_host: Option<String>,
    /// The networks of proxies that may set `X-Forwarded-For`.
    pub trusted_proxies: Vec<IpNet>,
    /// How old the feed may be at most.
    pub max_staleness: Duration,
    /// How many requests and streams may be open.
    pub limits: Limits,
    /// What the audit trail has.
    pub audit: Audited,
}

/// What the audit trail has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audited {
    /// Streams.
    Streams,
    /// Streams, and requests that may change something.
    Writes,
    /// Everything.
    All,
}

/// What the gateway is made of.
#[expect(missing_docs, reason = "the types say it")]
pub struct Parts {
    pub cluster: Cluster,
    pub feed: Feed,
    pub membership: Membership,
    pub clock: Clock,
    pub audit: Audit,
    pub metrics: Metrics,
    /// The tasks that forward.
    pub tasks: TaskTracker,
}

/// The gateway of one replica.
pub struct Gateway {
    settings: Settings,
    prefix: Prefix,
    admission: Admission,
    registry: Arc<Registry>,
    limits: Arc<limits::Usage>,
    minting: Minting,
    uses: Uses,
    upstream: Upstream,
    capacity: Capacity,
    feed: Feed,
    clock: Clock,
    entropy: Entropy,
    audit: Audit,
    metrics: Metrics,
    tasks: TaskTracker,
}

/// Where a request comes from, and over what.
struct Arrival {
    connection: Connection,
    address: Option<IpAddr>,
    origin: Origin,
    request_id: HeaderValue,
    is_http1: bool,
    /// How much memory its head takes.
    weight: u32,
}

impl Gateway {
    /// Builds the gateway. Makes no call yet.
    ///
    /// # Errors
    /// If the API server's address or CA is unreadable, or its proxy's protocol is unknown.
    pub fn new(config: &Config, settings: Settings, parts: Parts) -> anyhow::Result<Arc<Self>> {
        let Parts { cluster, feed, membership, clock, audit, metrics, tasks } = parts;
        let upstream = Upstream::new(config, tasks.clone())?;
        metrics.gateway.begin(&[FORWARDED], &StreamKind::STREAMS, &Why::LABELS);
        let trust = Trust { clock: clock.clone(), beat: feed.beat.clone(), max_staleness: settings.max_staleness };
        Ok(Arc::new(Self {
            prefix: Prefix::new(&settings.data_plane_id, &config.cluster_url)?
                .below(&settings.public_path)
                .with_own_host(settings.own_host.clone()),
            admission: Admission::new(cluster.clone(), feed.clone(), trust.clone(), metrics.clone()),
            registry: Registry::new(trust),
            limits: limits::Usage::new(settings.limits),
            minting: Minting::new(cluster, clock.clone(), audit.clone(), metrics.clone(), tasks.clone()),
            uses: Uses::new(membership, clock.clone(), tasks.clone()),
            upstream,
            capacity: Capacity::default(),
            feed,
            clock,
            entropy: Entropy::default(),
            audit,
            metrics,
            tasks,
            settings,
        }))
    }

    /// Whether this request is for the gateway.
    pub fn is_asked<B>(&self, request: &http::Request<B>) -> bool {
        self.prefix.matches(request)
    }

    /// Cuts what may no longer be open. Never returns.
    pub async fn keep_watch(&self) -> ! {
        self.admission.keep_watch(&self.registry).await
    }

    /// Ends what is open, since this replica stops: watches one after the other, so that their clients do not all come
    /// back at once; everything else after `period`, if it has not ended by itself.
    pub async fn drain(&self, period: Duration) {
        let deadline = Instant::now() + period;
        let watches = self.registry.watches();
        let pause = period / u32::try_from(watches.len() + 1).unwrap_or(u32::MAX);
        for watch in watches {
            watch.end(Why::Restarting);
            sleep_until(deadline.min(Instant::now() + pause)).await;
        }
        while Instant::now() < deadline && !self.registry.is_empty() {
            sleep(LOOK).await;
        }
        self.registry.end_all(Why::Restarting);
    }

    /// Answers a request, as far as it has an answer that is not a stream.
    pub async fn answer(&self, request: Request) -> Response {
        let answer = match self.entropy.uuid() {
            Ok(id) => with_audit_ids(id, self.handle(&id.to_string(), request)).await,
            Err(_) => Err(Failure::Undecided),
        };
        let outcome = answer.as_ref().map_or_else(Failure::label, |_| FORWARDED);
        self.metrics.gateway.requests.get_or_create(&GatewayLabels { outcome }).inc();
        answer.unwrap_or_else(|failure| failure.render())
    }

    async fn handle(&self, id: &str, request: Request) -> Result<Response, Failure> {
        if request.version() < Version::HTTP_11 {
            return Err(Failure::OldProtocol);
        }
        let arrival = self.arrival(&request, id)?;
        let target = self.prefix.target(&request).map_err(Failure::Target)?;
        let (mut parts, body) = request.into_parts();
        headers::refuse_browsers(&parts.headers)?;
        let upgrade = headers::upgrade(&parts.headers, parts.version);
        let info = RequestInfo::of(&parts.method, &target.asked, matches!(upgrade, Ok(Some(_))));
        let (upgrade, kind) = (upgrade.map_err(Failure::from), info.kind());
        let decided = Instant::now();
        let (pass, member, held) = self.admit(&parts.headers, &arrival, kind).await?;
        arrival.connection.authenticate();
        let upgrade = upgrade?;
        let is_audited = match self.settings.audit {
            Audited::All => true,
            Audited::Writes => kind.is_stream() || info.is_write(),
            Audited::Streams => kind.is_stream(),
        };
        let token = self.minting.header(&member, &pass).await.map_err(|none| match none {
            NoToken::Gone => Failure::Revoked,
            NoToken::Failed => Failure::Undecided,
        })?;
        let ours = Ours {
            host: self.prefix.host(),
            origin: (kind == StreamKind::Watch && upgrade == Some(Upgrade::WebSocket)).then_some(ORIGIN),
            client: arrival.address,
            request_id: arrival.request_id,
            authorization: token.clone(),
        };
        // A token that is slow to come must not make the decision an old one.
        if decided.elapsed() > self.settings.max_staleness {
            return Err(Failure::Undecided);
        }
        let forwarded = headers::request(&parts.headers, upgrade, ours)?;
        let open = self.registry.register(&member, pass.clone(), kind);
        // What happened before it was registered was not told to it.
        self.registry.review(&member.id, self.feed.members.get(&member.id).as_deref(), self.clock.now());
        self.uses.note(&member, &pass);
        let warning = self.warning(&member);
        let admitted = Admitted { open, kind, info, member, origin: arrival.origin, is_audited, held };
        let exchange = Exchange::begin(admitted, self.audit.clone(), self.metrics.clone());

        let client = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let body = match body.is_end_stream() {
            true => Body::empty(),
            false => Body::new(RequestBody::new(body, Arc::clone(&exchange))),
        };
        let mut request = http::Request::new(body);
        (*request.method_mut(), *request.uri_mut()) = (parts.method, target.uri);
        *request.headers_mut() = forwarded;

        let forward = Forward {
            upstream: self.upstream.clone(),
            exchange,
            client: Client { connection: arrival.connection, is_http1: arrival.is_http1 },
            warning,
        };
        let mut answer = match (upgrade, client) {
            (Some(asked), Some(client)) => forward.upgrade(request, (asked, client), &self.tasks).await?,
            (Some(_), None) => return Err(Failure::NotUpgraded),
            (None, _) => forward.run(request, &self.tasks).await?,
        };
        if answer.status() == http::StatusCode::UNAUTHORIZED {
            self.minting.forget(&pass, &token);
        }
        let location = answer.headers().get(LOCATION);
        if let Some(here) = location.and_then(|there| self.prefix.location(there, target.has_prefix)) {
            answer.headers_mut().insert(LOCATION, here);
        }
        Ok(answer)
    }

    /// Where a request comes from.
    fn arrival(&self, request: &Request, id: &str) -> Result<Arrival, Failure> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(it)| it.ip().to_canonical());
        let address = peer.map(|peer| client_address(peer, request.headers(), &self.settings.trusted_proxies));
        let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
        let origin = Origin {
            address: address.map(|address| address.to_string()),
            request_id: Some(id.to_owned()),
            request: None,
        };
        let request_id = HeaderValue::from_str(id).map_err(|_| Failure::Undecided)?;
        let is_http1 = request.version() < Version::HTTP_2;
        Ok(Arrival { connection, address, origin, request_id, is_http1, weight: weight(request) })
    }

    /// Authenticates a request and takes a place for it. Its connection bounds what a stranger can hold meanwhile.
    async fn admit(
        &self,
        headers: &HeaderMap,
        arrival: &Arrival,
        kind: StreamKind,
    ) -> Result<(Pass, Arc<Member>, Held), Failure> {
        let _place = match arrival.connection.is_authenticated() {
            true => None,
            false => Some(arrival.connection.admit(arrival.weight, &self.capacity).await.ok_or(Failure::Undecided)?),
        };
        let token = GatewayToken::parse(headers::bearer(headers)?).ok_or(Refused::NoBearer)?;
        let id = &token.subject().member;
        let hold = || {
            let held = self.limits.hold(id, kind.is_stream());
            if matches!(held, Err(TooMany::InAll)) {
                self.registry.make_room();
            }
            held.map_err(Failure::TooMany)
        };
        // What waits for a live read counts, too, but no stranger takes a member's place.
        let held = if self.admission.must_ask(&token) { Some(hold()?) } else { None };
        let pass = self.admission.decide(&token, arrival.address).await.map_err(|denied| match denied {
            Denied::Refused(refusal) => Failure::Cut(Why::Refused(refusal)),
            Denied::Undecided => Failure::Undecided,
        })?;
        let member = self.feed.members.get(id).ok_or(Failure::Undecided)?;
        Ok((pass, member, held.map_or_else(hold, Ok)?))
    }

    /// A warning for a member whose end is near, which kubectl shows.
    fn warning(&self, member: &Member) -> Option<HeaderValue> {
        let (end, now) = (member.expires_at(), self.clock.now());
        let text = format!("299 - \"this membership ends at {}\"", rfc3339(end));
        if end - now > WARNING { None } else { HeaderValue::from_str(&text).ok() }
    }
}
