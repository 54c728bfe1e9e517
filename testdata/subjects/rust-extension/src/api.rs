//! The Extensions and the Telemetry API, and the clients that speak to them.

use std::{env, time::Duration};

use reqwest::{Client, ClientBuilder, Response};

use crate::{config::Changes, Result};

/// The client of register and next: a request may last as long as it wants to.
pub fn register_client(changes: Changes) -> Result<Client> {
    Ok(roots(Client::builder().no_proxy(), changes).build()?)
}

/// The client of what is flushed, behind the user's proxy.
pub fn shared_client(changes: Changes) -> Result<Client> {
    let builder = Client::builder().timeout(Duration::from_secs(5)).pool_max_idle_per_host(0);
    Ok(roots(builder, changes).build()?)
}

/// h1: Mozilla's roots as they were compiled in; otherwise the system's files
/// are read for each client.
fn roots(builder: ClientBuilder, changes: Changes) -> ClientBuilder {
    builder.tls_built_in_webpki_certs(changes.h1).tls_built_in_native_certs(!changes.h1)
}

/// An extension that the environment knows.
#[derive(Clone)]
pub struct Registration {
    client: Client,
    base: String,
    id: String,
}

impl Registration {
    pub async fn new(client: Client) -> Result<Self> {
        let base = format!("http://{}", env::var("AWS_LAMBDA_RUNTIME_API")?);
        let path = env::args().next().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let response = client
            .post(format!("{base}/2020-01-01/extension/register"))
            .header("Lambda-Extension-Name", name)
            .body(r#"{"events":["INVOKE","SHUTDOWN"]}"#)
            .send()
            .await?
            .error_for_status()?;
        let id = response.headers().get("Lambda-Extension-Identifier").ok_or("register's answer has no identifier")?.to_str()?.to_owned();
        read(response).await?;
        Ok(Self { client, base, id })
    }

    pub async fn subscribe(&self, port: u16) -> Result<()> {
        let body = format!(
            r#"{{"schemaVersion":"2022-12-13","types":["platform","function"],"buffering":{{"maxItems":1000,"maxBytes":262144,"timeoutMs":25}},"destination":{{"protocol":"HTTP","URI":"http://sandbox.localdomain:{port}/"}}}}"#
        );
        let request = self.client.put(format!("{}/2022-07-01/telemetry", self.base)).body(body);
        let response = request.header("Lambda-Extension-Identifier", &self.id).send().await?.error_for_status()?;
        read(response).await?;
        Ok(())
    }

    /// Asks for events until SHUTDOWN. With the shared client go what a real
    /// extension flushes; this one only keeps it.
    pub async fn events(&self, shared: Client) -> Result<()> {
        loop {
            let request = self.client.get(format!("{}/2020-01-01/extension/event/next", self.base));
            let response = request.header("Lambda-Extension-Identifier", &self.id).send().await?.error_for_status()?;
            if read(response).await?.contains("\"SHUTDOWN\"") {
                drop(shared);
                return Ok(());
            }
        }
    }
}

/// Reads a body to its end, so that the connection serves the next request.
async fn read(response: Response) -> Result<String> {
    Ok(response.text().await?)
}
