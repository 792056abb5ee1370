//! Forwards a request that asks for another protocol (exec, attach, cp, port-forward), and cuts what comes of it.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::Failure;
use super::cut::{frames, last_words};
use super::exchange::Exchange;
use super::failure::NoAnswer;
use super::forward::{Forward, GRACE, HEAD};
use super::frames::Frames;
use super::headers::{self, Upgrade};
use super::registry::Why;
use super::request_info::StreamKind;

/// How much is read at once, each way.
const BUFFER: usize = 32 * 1024;
/// How long the client may take to close after the API server has.
const CLOSE: Duration = Duration::from_secs(10);
/// How much of a frame that has begun may follow after the cut, in bytes. The API server's frames are smaller.
const MAX_REST: usize = 64 * 1024;

type Stream = TokioIo<Upgraded>;

impl Forward {
    /// Sends the request over a connection of its own. Only after a 101 do bytes pass both ways (CVE-2018-1002105).
    pub(super) async fn upgrade(
        self,
        request: Request<Body>,
        (asked, client): (Upgrade, OnUpgrade),
        tasks: &TaskTracker,
    ) -> Result<Response, Failure> {
        let sent = async { timeout(HEAD, self.upstream.send_alone(request)).await.map_err(|_| NoAnswer::TooSlow)? };
        // A command changes something, though exec over WebSocket is a GET.
        let (answer, driver) = self.answered(sent, true).await?;
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => {}
            // kubectl then tries SPDY, and shows what this says.
            status if status.as_u16() >= 400 => return Ok(self.pass(answer, Some(driver), tasks).await),
            _ => return Err(Failure::NotUpgraded),
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers::switched(answer.headers(), asked).ok_or(Failure::NotUpgraded)?;
        let frames = frames(self.exchange.kind, answer.headers());
        let server = hyper::upgrade::on(answer);
        self.client.connection.upgrade();
        tasks.spawn(async move {
            let _driver = driver;
            let _in_use = self.client.connection.forward();
            tokio::select! {
                _ = self.exchange.open.cut() => self.client.connection.reset(),
                both = async { tokio::try_join!(client, server) } => match both {
                    Ok((client, server)) => self.splice(TokioIo::new(client), TokioIo::new(server), frames).await,
                    Err(_) => self.client.connection.reset(),
                },
            }
        });
        Ok(response)
    }

    /// Passes bytes both ways until one side ends, or the stream is cut.
    async fn splice(&self, client: Stream, server: Stream, frames: Box<dyn Frames>) {
        let (mut from_client, to_client) = tokio::io::split(client);
        let (from_server, mut to_server) = tokio::io::split(server);
        let mut down = Down { server: from_server, client: to_client, buffer: Vec::with_capacity(BUFFER), frames };
        let ended = {
            let mut up = std::pin::pin!(self.copy_up(&mut from_client, &mut to_server));
            let mut is_up_over = false;
            let ended = loop {
                tokio::select! {
                    why = self.exchange.open.cut() => break Ended::Cut(why),
                    passed = down.pass_on(&self.exchange) => match passed {
                        Passed::Some => {}
                        Passed::All => break Ended::ByServer,
                        Passed::Broken => break Ended::Broken,
                    },
                    () = &mut up, if !is_up_over => is_up_over = true,
                }
            };
            if ended == Ended::ByServer && !is_up_over {
                // The API server has nothing more to say, but the client may.
                let closing = async {
                    let _ = down.client.shutdown().await;
                    up.await;
                };
                tokio::select! {
                    _ = self.exchange.open.cut() => Ended::Broken,
                    closed = timeout(CLOSE, closing) => if closed.is_ok() { ended } else { Ended::Broken },
                }
            } else {
                ended
            }
        };
        match ended {
            Ended::ByServer => {}
            // The client must not take it for an end.
            Ended::Broken => self.client.connection.reset(),
            Ended::Cut(why) => {
                drop(to_server);
                let told = timeout(GRACE, down.end(why, &self.exchange)).await.unwrap_or(false);
                drop(down.server);
                // Closing a socket that has unread bytes would discard what we have just sent.
                let _ = timeout(GRACE, tokio::io::copy(&mut from_client, &mut tokio::io::sink())).await;
                if !told || self.client.connection.is_blocked() {
                    self.client.connection.reset();
                }
            }
        }
    }

    /// Copies from the client to the API server, half-close included, until either is gone.
    async fn copy_up(&self, client: &mut ReadHalf<Stream>, server: &mut WriteHalf<Stream>) {
        let mut buffer = vec![0; BUFFER];
        while let Ok(read @ 1..) = client.read(&mut buffer).await {
            // Cut meanwhile, and not polled since.
            if self.exchange.open.why().is_some() || server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
            // TLS may still hold a part.
            if server.flush().await.is_err() {
                return;
            }
            self.exchange.received(read);
        }
        let _ = server.shutdown().await;
    }
}

/// How an upgraded connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The API server has closed its side.
    ByServer,
    /// The API server or the client is gone without a word.
    Broken,
    Cut(Why),
}

/// What has been passed on.
enum Passed {
    /// A piece, or nothing yet.
    Some,
    /// All there was: the API server has closed its side.
    All,
    /// The API server or the client is gone.
    Broken,
}

/// The way from the API server to the client.
struct Down {
    server: ReadHalf<Stream>,
    client: WriteHalf<Stream>,
    /// What has been read, and not passed on yet.
    buffer: Vec<u8>,
    frames: Box<dyn Frames>,
}

impl Down {
    /// Passes a piece on. Losing no byte when dropped, it can be called again.
    async fn pass_on(&mut self, exchange: &Exchange) -> Passed {
        if self.buffer.is_empty() {
            match self.read(exchange).await {
                Ok(0) => return Passed::All,
                Ok(_) => {}
                Err(_) => return Passed::Broken,
            }
        }
        if exchange.open.why().is_some() {
            return Passed::Some;
        }
        let written = {
            let _waits = exchange.open.waits_for_client();
            self.client.write(&self.buffer).await
        };
        let Ok(written @ 1..) = written else { return Passed::Broken };
        exchange.sent(written);
        // After bytes that break the rules, nothing fits in any more.
        let _ = self.frames.follow(&self.buffer[..written]);
        self.buffer.drain(..written);
        Passed::Some
    }

    async fn read(&mut self, exchange: &Exchange) -> std::io::Result<usize> {
        {
            // TLS holds what was written until the client takes it.
            let _waits = exchange.open.waits_for_client();
            self.client.flush().await?;
        }
        self.server.read_buf(&mut self.buffer).await
    }

    /// Finishes the frame that has begun, if there is something to say after it, and says why there are no more.
    /// Whether the client was told.
    async fn end(&mut self, why: Why, exchange: &Exchange) -> bool {
        let last = last_words(&*self.frames, exchange.kind == StreamKind::Watch, why);
        let mut finished = 0;
        while !last.is_empty() && !self.frames.can_insert() {
            if self.buffer.is_empty() && !matches!(self.read(exchange).await, Ok(1..)) {
                return false;
            }
            let Ok(rest @ 1..) = self.frames.follow_to_gap(&self.buffer) else { return false };
            finished += rest;
            if finished > MAX_REST || self.client.write_all(&self.buffer[..rest]).await.is_err() {
                return false;
            }
            self.buffer.drain(..rest);
        }
        self.client.write_all(&last).await.is_ok() && self.client.shutdown().await.is_ok()
    }
}
