//! Connections: how many, how slow, and how they end.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Answers requests until `shutdown`, then lets those that are under way finish, and returns.
pub(in crate::control) async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let (closing, closed) = watch::channel(());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let place = tokio::select! {
            () = &mut shutdown => break,
            Some(_ended) = connections.join_next() => continue,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let stream = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    wait_out(&error).await;
                    continue;
                }
            },
        };
        let connection = converse(stream, router.clone(), closed.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop((listener, closed));
    // Everybody learns it from the channel's end.
    drop(closing);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, ended).await.is_err() {
        tracing::debug!(count = connections.len(), "requests still under way are cut off");
    }
}

async fn converse(stream: TcpStream, router: Router, mut closed: watch::Receiver<()>) {
    // Answers are small and whole; waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    // What goes wrong on a connection is the client's to notice.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = closed.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// A client that has gone already is nothing; a lack of descriptors passes.
async fn wait_out(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(cause = %error, "cannot accept a connection");
        sleep(Duration::from_secs(1)).await;
    }
}

/// Connections at once; more wait in the kernel's queue. Judgement: people and scrapers, not the public.
const CONNECTIONS_MAX: usize = 256;
/// A connection without a request is closed after this; so is one whose headers take longer.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// At the end, requests under way get this long.
const GRACE: Duration = Duration::from_secs(5);
