//! What listens on this machine: StatsD over UDP, and HTTP that accepts all.

use std::convert::Infallible;

use http_body_util::{BodyExt, Empty};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
    Request, Response,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UdpSocket};

use crate::Result;

/// Receives metrics, and drops them.
pub async fn dogstatsd(port: u16) -> Result<()> {
    let socket = UdpSocket::bind(("127.0.0.1", port)).await?;
    tokio::spawn(async move {
        let mut packet = vec![0; 8192];
        while socket.recv_from(&mut packet).await.is_ok() {}
    });
    Ok(())
}

/// Answers every request with 200 once its body has been read.
pub async fn http(port: u16) -> Result<u16> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(accept)));
        }
    });
    Ok(port)
}

async fn accept(request: Request<Incoming>) -> std::result::Result<Response<Empty<Bytes>>, Infallible> {
    let _ = request.into_body().collect().await; // what could not be read is gone
    Ok(Response::new(Empty::new()))
}
