//! A Lambda extension that starts as the one does that the cold-start changes
//! come from: TLS, register, configuration, listeners, telemetry, `/next`.
//!
//! `INITPROF_EXTENSION_CHANGES` holds what is on: `none` (the default), `all`,
//! or a list of h1, h2, h4, h15. h7 and h16 are features of the build.

mod api;
mod checkpoint;
mod config;
mod listeners;

use std::{error::Error, process::ExitCode};

use api::Registration;
use config::{Changes, Config};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads before it makes its first arena.
#[cfg(feature = "h16")]
#[export_name = "malloc_conf"]
pub static MALLOC_CONF: Option<&'static std::ffi::c_char> = {
    static TEXT: [u8; 11] = *b"narenas:1\0\0";
    // SAFETY: jemalloc reads a C string there, which TEXT is.
    Some(unsafe { &*TEXT.as_ptr().cast() })
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    checkpoint::start();
    let changes = Changes::from_env();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if changes.h15 {
        builder.worker_threads(config::workers());
    }
    let ended = builder.enable_all().build().map_err(Into::into).and_then(|runtime| runtime.block_on(run(changes)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("DD_EXTENSION | ERROR | {e}");
            ExitCode::FAILURE
        }
    }
}

async fn run(changes: Changes) -> Result<()> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "a provider of cryptography is there already")?;
    checkpoint::reach("crypto_provider_ready");

    let (config, shared, registration) = if changes.h4 { overlapped(changes).await? } else { in_turn(changes).await? };
    checkpoint::reach("register_ready");

    // The socket listens before anybody is told of it, so that no event is lost.
    let telemetry = listeners::http(8999).await?;
    let subscribed = changes.h2.then(|| {
        let registration = registration.clone();
        tokio::spawn(async move { registration.subscribe(telemetry).await })
    });

    listeners::dogstatsd(8125).await?;
    checkpoint::reach("dogstatsd_started");
    listeners::http(8126).await?; // traces
    listeners::http(8124).await?; // lifecycle
    checkpoint::reach("trace_agent_started");

    match subscribed {
        Some(task) => task.await??,
        None => registration.subscribe(telemetry).await?,
    }
    checkpoint::reach("telemetry_subscribed");

    checkpoint::ready(config.settings);
    registration.events(shared).await
}

/// As it was: one thing after the other.
async fn in_turn(changes: Changes) -> Result<(Config, reqwest::Client, Registration)> {
    let client = api::register_client(changes)?;
    checkpoint::reach("tls_client_build");
    let registration = Registration::new(client).await?;
    let config = Config::load();
    checkpoint::reach("config_parse");
    let shared = api::shared_client(changes)?;
    checkpoint::reach("shared_client_ready");
    Ok((config, shared, registration))
}

/// h4: the client of register is built on a thread of its own, and the request
/// is under way while the rest is prepared.
async fn overlapped(changes: Changes) -> Result<(Config, reqwest::Client, Registration)> {
    let registered = tokio::spawn(async move {
        let (send, receive) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("register".into()).spawn(move || send.send(api::register_client(changes)))?;
        Registration::new(receive.await??).await
    });
    let config = Config::load();
    checkpoint::reach("config_parse");
    let shared = api::shared_client(changes)?;
    checkpoint::reach("shared_client_ready");
    Ok((config, shared, registered.await??))
}
