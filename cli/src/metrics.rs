//! `commipc hub --metrics`: what a hub holds and has done, over HTTP, in the text format of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>, version 0.0.4).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use commipc_tokio::{Hub, HubCounters, HubLoad};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::failure::{Failure, Outcome};

/// Who asks, and how many at a time. More wait, and whoever is slower than this gets nothing.
const ASKING: usize = 16;
const PATIENCE: Duration = Duration::from_secs(5);

/// Where it is asked for.
pub(crate) struct Metrics {
    listener: TcpListener,
    address: SocketAddr,
}

impl Metrics {
    pub(crate) async fn listen(address: SocketAddr) -> Outcome<Self> {
        let failed = |error| Failure::io(format_args!("listening on {address} for --metrics"), &error);
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    pub(crate) fn announce(&self, json: bool) {
        let url = format!("http://{}/metrics", self.address);
        if json {
            crate::say(serde_json::json!({ "metrics": url }));
        } else {
            crate::say(format_args!("metrics on {url}"));
        }
    }

    /// Goes on for ever.
    pub(crate) async fn serve(&self, hub: &Hub) {
        let mut asking = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = asking.join_next() => {}
                accepted = self.listener.accept(), if asking.len() < ASKING => match accepted {
                    Ok((stream, _)) => {
                        let hub = hub.clone();
                        asking.spawn(async move {
                            let answer = service_fn(|request| {
                                let answer = answer(&request, &hub);
                                async { Ok::<_, Infallible>(answer) }
                            });
                            let mut http = http1::Builder::new();
                            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
                            let connection = http.keep_alive(false).serve_connection(TokioIo::new(stream), answer);
                            // Who is gone before the answer has lost nothing of the hub.
                            let _ = tokio::time::timeout(PATIENCE, connection).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "nobody can ask for metrics; trying again");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }
}

fn answer(request: &Request<Incoming>, hub: &Hub) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
        *response.body_mut() = Full::from("what this hub tells is at /metrics\n");
    } else if request.method() != Method::GET && request.method() != Method::HEAD {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    } else {
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        *response.body_mut() = Full::from(text(hub.load(), hub.counters()));
    }
    response
}

/// One line for each number, below what it is.
fn text(load: HubLoad, counters: HubCounters) -> String {
    let gauges = gauges(load).map(|(name, help, value)| (name, "gauge", help, value as u64));
    let counters = self::counters(counters).map(|(name, help, value)| (name, "counter", help, value));
    let mut text = String::new();
    for (name, kind, help, value) in gauges.into_iter().chain(counters) {
        text += &format!("# HELP commipc_{name} {help}\n# TYPE commipc_{name} {kind}\ncommipc_{name} {value}\n");
    }
    text
}

/// What a hub holds: name, what it is, how much.
fn gauges(load: HubLoad) -> [(&'static str, &'static str, usize); 10] {
    let HubLoad {
        links,
        clients,
        channels,
        calls,
        routes: _,
        streams,
        deadlines: _,
        joins,
        bridged: _,
        errands,
        announced,
        buffered,
        memory,
    } = load;
    [
        ("links", "Connections, authenticated or not.", links),
        ("clients", "Authenticated clients.", clients),
        ("channels", "Channels, those included that are remembered without members.", channels),
        ("requests", "Calls and streams on their way.", calls),
        ("streams", "How many of the requests are streams.", streams),
        ("joins", "Joins of protected channels that wait for a proof, or have failed lately.", joins),
        ("errands", "Joins and owners' wishes on their way to other hubs, or from there.", errands),
        ("announced", "What bridges have announced, and what is announced to each of them.", announced),
        ("buffered_bytes", "Frames that came in part, or wait to be sent.", buffered),
        ("memory_bytes", "What the hub has counted of its memory.", memory),
    ]
}

/// What a hub has counted since it started.
fn counters(counters: HubCounters) -> [(&'static str, &'static str, u64); 11] {
    let HubCounters {
        forwarded,
        ended_route,
        mismatched,
        skipped,
        violations,
        looped,
        doubled,
        unremembered,
        unadmitted,
        misannounced,
        unlearned,
    } = counters;
    [
        ("forwarded_frames_total", "Messages forwarded, once for each destination.", forwarded),
        ("late_frames_total", "Messages for requests that had ended.", ended_route),
        ("mismatched_frames_total", "Messages that did not fit the request they named.", mismatched),
        ("skipped_frames_total", "Frames of types that this version does not know.", skipped),
        ("violations_total", "Connections that ended because their peer broke the protocol.", violations),
        ("looped_messages_total", "Messages that came back to this hub, or had passed too many.", looped),
        ("doubled_messages_total", "Copies of messages that had come over another bridge.", doubled),
        ("unremembered_messages_total", "Messages of other hubs that there was no place to remember.", unremembered),
        (
            "unadmitted_messages_total",
            "Messages of other hubs that fit no channel, or came when it was full.",
            unadmitted,
        ),
        ("misannounced_total", "What bridges announced and cannot be so.", misannounced),
        ("unlearned_total", "What bridges announced beyond their limit.", unlearned),
    ]
}
