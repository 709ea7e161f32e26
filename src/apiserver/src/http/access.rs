//! Who asks, as whom, and whether they may: before anything else is looked at,
//! as upstream's filters do.

use std::sync::Arc;

use barque_api::StatusError;
use http::request::Parts;

use super::path::Route;
use super::{Api, PeerUser};
use crate::audit;
use crate::auth::authn::unauthorized;
use crate::auth::{Attributes, Credentials, Decision, User, authz, impersonate};

impl Api {
    /// The user on whose behalf a request is answered, and who asks for it if
    /// that is somebody else.
    ///
    /// # Errors
    /// 401 when it is nobody, 403 when acting as the user is not allowed.
    pub(super) async fn identify(
        &self,
        route: &Route,
        parts: &Parts,
    ) -> Result<(Arc<User>, Option<Arc<User>>), StatusError> {
        let certificate = parts.extensions.get::<PeerUser>().map(|peer| &peer.0);
        let user = self.identity.authenticate(Credentials { certificate, headers: &parts.headers }).await?;
        self.refuse_anonymous(route, &user)?;
        let Some(asked) = impersonate::parse(&parts.headers)? else { return Ok((user, None)) };
        for request in &asked.asked {
            self.require(&user, request).await?;
        }
        Ok((asked.user, Some(user)))
    }

    /// Refuses what the user may not do.
    ///
    /// # Errors
    /// 403 in upstream's words.
    pub(super) async fn permit(&self, route: &Route, user: &User, asked: &Attributes) -> Result<(), StatusError> {
        if is_public(route) && matches!(asked.verb.as_str(), "get" | "head" | "options") {
            return Ok(());
        }
        self.require(user, asked).await
    }

    fn refuse_anonymous(&self, route: &Route, user: &User) -> Result<(), StatusError> {
        if user.is_authenticated() || self.identity.allows_anonymous() || is_public(route) {
            Ok(())
        } else {
            Err(unauthorized())
        }
    }

    pub(super) async fn require(&self, user: &User, request: &Attributes) -> Result<(), StatusError> {
        match self.pipeline.decide_fully(user, request).await {
            Decision::Allow => {
                audit::annotate("authorization.k8s.io/decision", "allow");
                Ok(())
            }
            Decision::NoOpinion(reason) | Decision::Deny(reason) => {
                audit::annotate("authorization.k8s.io/decision", "forbid");
                audit::annotate("authorization.k8s.io/reason", reason.as_str());
                Err(authz::forbidden(user, request, &reason))
            }
        }
    }
}

/// Open to everybody, whether or not anonymous requests are let through.
fn is_public(route: &Route) -> bool {
    matches!(route, Route::Health(..) | Route::Version)
}
