//! A homeserver without data. It answers a request with the path that it reads,
//! and a login, registration or refresh with tokens. Paths are compared as they
//! are, without decoding.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const BEARER: &str = "Bearer raw_token_";

/// Reports whether a path is that of a route whose answers hold tokens.
fn hands_out(path: &str) -> bool {
    let mut segments = path.split('/').skip(1);
    let area = (segments.next(), segments.next());
    let last = path.rsplit('/').next().unwrap_or("");
    matches!(
        area,
        (Some("_matrix"), Some("client")) | (Some("_synapse"), Some("client" | "admin"))
    ) && matches!(last, "login" | "register" | "refresh")
        && !path.contains("/rooms/")
}

/// Returns the number in an access token of this homeserver.
fn number(request: &Request<Incoming>) -> Option<String> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix(BEARER).map(str::to_owned)
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => write!(out, "\\u{:04x}", c as u32).expect("a string"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

async fn answer(
    request: Request<Incoming>,
    logins: Rc<Cell<u32>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let authorized = number(&request);
    let changes = matches!(*request.method(), Method::POST | Method::PUT);
    // Read the body, so that the next request on the connection is understood.
    let _ = request.into_body().collect().await;
    let body = if changes && hands_out(&path) {
        logins.set(logins.get() + 1);
        let n = logins.get();
        format!(
            r#"{{"access_token":"raw_token_{n}","refresh_token":"raw_token_r{n}","user_id":"@a:localhost","device_id":"D{n}"}}"#
        )
    } else {
        match (path.as_str(), authorized) {
            ("/_matrix/client/versions", _) => r#"{"versions":["v1.11"]}"#.to_owned(),
            ("/_matrix/client/v3/account/whoami", Some(n)) => {
                format!(r#"{{"user_id":"@a:localhost","device_id":"D{n}"}}"#)
            }
            (path, n) => format!(r#"{{"path":{},"authorized":{}}}"#, quoted(path), n.is_some()),
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(
        CONTENT_TYPE,
        "application/json".parse().expect("a header value"),
    );
    Ok(response)
}

async fn serve(address: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let logins = Rc::new(Cell::new(0));
    loop {
        let (stream, _) = listener.accept().await?;
        let logins = logins.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| answer(request, logins.clone()));
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn main() -> std::io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .expect("usage: echo ADDRESS");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(address))
}
