//! Extension API servers: the front proxy's certificate, and the duty that
//! looks after the `APIService`s.

use std::sync::Arc;

use async_trait::async_trait;
use barque_apiserver::outbound::ClientIdentity;
use barque_apiserver::{Authentication, Keeper, Pipeline};
use barque_runtime::{Duty, DutyContext};

use crate::config::ServerConfig;
use crate::files::{self, FileError};
use crate::pki::FRONT_PROXY;

/// The front proxy's certificate, if there is one.
///
/// # Errors
/// When a file cannot be read.
pub fn identity(config: &ServerConfig) -> Result<Option<ClientIdentity>, FileError> {
    let Some(front) = &config.front_proxy else { return Ok(None) };
    let certificate = files::read_text(&front.certificate)?;
    let key = files::read_text(&front.key)?;
    Ok(Some(ClientIdentity { certificate: Arc::from(certificate.as_bytes()), key: Arc::from(key.as_bytes()) }))
}

/// The duty.
pub struct Aggregation(Keeper);

impl Aggregation {
    /// With the cluster's authority (PEM).
    ///
    /// # Errors
    /// When a file of the front proxy cannot be read.
    pub fn new(config: &ServerConfig, pipeline: &Arc<Pipeline>, authority: &str) -> Result<Self, FileError> {
        let proxy = match &config.front_proxy {
            Some(front) => Some((files::read_text(&front.ca)?, vec![FRONT_PROXY.to_owned()])),
            None => None,
        };
        let authentication = Authentication { client_ca: authority.to_owned(), proxy };
        Ok(Self(Keeper { pipeline: Arc::clone(pipeline), identity: identity(config)?, authentication }))
    }
}

#[async_trait]
impl Duty for Aggregation {
    fn name(&self) -> &'static str {
        "apiservice"
    }

    async fn run(&self, context: DutyContext) {
        self.0.run(Some(context.token.term())).await;
    }
}
