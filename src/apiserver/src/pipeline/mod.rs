//! The one way of a write: every verb of every kind, from outside and from
//! leader duties, goes through here.
//!
//! Each operation is a synchronous *plan* from a snapshot to a transaction;
//! `execute` runs plans: it proposes, and plans again when the world has
//! moved. An error that was found on a possibly old snapshot is only answered
//! after the same plan fails on a confirmed one.

mod accounts;
mod admission;
mod bootstrap;
mod connect;
mod context;
mod create;
mod custom;
mod delete;
mod execute;
mod gate;
mod memo;
mod meta;
mod model;
mod patch;
mod pods;
mod read;
mod requester;
mod scale;
mod services;
mod update;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use barque_api::world::World;
use barque_api::{Object, Registry, Resource, StatusError};
use barque_store::Store;

pub use admission::{Admission, AdmissionRequest, Admitted, Notes, Operation};
pub use barque_api::patch::PatchType;
pub use bootstrap::{ApiService, IDENTITY_LABEL, IDENTITY_NAMESPACE, MASTER_ADDRESS, MASTER_NAME, MasterIdentity};
pub use context::{DeleteOptions, Door, FieldValidation, Patch, Propagation, RequestContext, Target};
pub use custom::{Converter, NoConverter};
pub use execute::{Written, is_stale_term, store_error};
pub use memo::{Answer, Memo, NoAnswer, Question, QuestionId};
pub(crate) use model::{Decoded, decode_json, decode_yaml, encode_yaml, shape, too_large};
pub(crate) use read::derived_records;
pub use read::{Consistency, too_large_revision};
pub use scale::scale_of;
pub(crate) use scale::{replicas_path, scale_at};

use crate::admission::{self as plugins, Parts};
use crate::audit;
use crate::auth::{Attributes, Authorizer, Authorizers, Decision, RbacAuthorizer, UserRules, authz, rbac};
use crate::options::PipelineOptions;
use crate::outbound::{JsonCaller, Outbound};

/// The pipeline. Cheap to share behind an [`Arc`].
pub struct Pipeline {
    store: Arc<dyn Store>,
    catalog: custom::Catalog,
    converter: Arc<dyn Converter>,
    world: World,
    options: PipelineOptions,
    authorizers: Arc<Authorizers>,
    rbac: Arc<RbacAuthorizer>,
    admission: Vec<Arc<dyn Admission>>,
    outbound: Arc<Outbound>,
    caller: Arc<dyn JsonCaller>,
    gates: gate::Gates,
}

impl Pipeline {
    /// A pipeline with the built-in admission plugins and the default
    /// authorizers.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, registry: Arc<Registry>, world: World, options: PipelineOptions) -> Self {
        let rbac = Arc::new(RbacAuthorizer::default());
        let authorizers = Arc::new(Authorizers::standard(Arc::clone(&rbac)));
        let authorizer: Arc<dyn Authorizer> = Arc::clone(&authorizers) as _;
        let catalog = custom::Catalog::new(registry);
        let parts =
            Parts { options: &options.admission, authorizer: &authorizer, registry: catalog.shared(), world: &world };
        let admission = plugins::builtin(&parts);
        let outbound = Arc::new(Outbound::new(Arc::clone(&store)));
        let caller = Arc::clone(&outbound) as _;
        let converter = Arc::clone(&outbound) as _;
        Self {
            store,
            catalog,
            converter,
            world,
            options,
            authorizers,
            rbac,
            admission,
            outbound,
            caller,
            gates: gate::Gates::default(),
        }
    }

    /// The same pipeline with another authorizer.
    #[must_use]
    pub fn with_authorizer(self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizers.set(vec![authorizer]);
        self
    }

    /// Lets these decide from now on, in order, in place of the default ones.
    pub fn set_authorizers(&self, list: Vec<Arc<dyn Authorizer>>) {
        self.authorizers.set(list);
    }

    /// The authorizer by roles, to be one of several.
    #[must_use]
    pub fn rbac(&self) -> &Arc<RbacAuthorizer> {
        &self.rbac
    }

    /// The same pipeline with one more admission plugin, asked after the
    /// others but before the quotas: these charge what all have made of an
    /// object.
    #[must_use]
    pub fn with_admission(mut self, plugin: Arc<dyn Admission>) -> Self {
        let last = self.admission.iter().position(|other| other.name() == plugins::LAST);
        self.admission.insert(last.unwrap_or(self.admission.len()), plugin);
        self
    }

    /// The same pipeline with a client for conversion webhooks.
    #[must_use]
    pub fn with_converter(mut self, converter: Arc<dyn Converter>) -> Self {
        self.converter = converter;
        self
    }

    fn converter(&self) -> &Arc<dyn Converter> {
        &self.converter
    }

    /// The same pipeline with another way to webhooks.
    #[must_use]
    pub fn with_caller(mut self, caller: Arc<dyn JsonCaller>) -> Self {
        self.caller = caller;
        self
    }

    /// The client for other servers.
    #[must_use]
    pub fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The kinds served at this moment; custom resources come and go.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.catalog.registry(self.store.view())
    }

    /// Serves these kinds besides the custom ones from now on. Requests that
    /// have found their row go on with it.
    pub fn set_registry(&self, registry: Arc<Registry>) {
        self.catalog.set_base(registry, self.store.view());
    }

    /// Clock and randomness.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Options.
    #[must_use]
    pub fn options(&self) -> &PipelineOptions {
        &self.options
    }

    /// The target of a storage name (`pods`, `deployments.apps`), for callers
    /// inside the server.
    ///
    /// # Errors
    /// When no such kind is served.
    pub fn target(&self, storage: &str, namespace: &str, name: &str) -> Result<Target, StatusError> {
        let registry = self.registry();
        let row = registry
            .by_storage(storage)
            .ok_or_else(|| StatusError::internal(format!("no resource is stored as {storage:?}")))?;
        Ok(Target::new(row, namespace, name))
    }

    /// Whether a user may do something.
    #[must_use]
    pub fn decide(&self, user: &crate::auth::User, request: &Attributes) -> Decision {
        self.authorizers.authorize(user, request, &self.store.view().snapshot())
    }

    /// As [`Pipeline::decide`], but asks first whoever else must be asked.
    pub async fn decide_fully(&self, user: &crate::auth::User, request: &Attributes) -> Decision {
        let snapshot = self.store.view().snapshot();
        if self.authorizers.asks() {
            self.authorizers.prepare(user, request, &snapshot).await;
        }
        self.authorizers.authorize(user, request, &snapshot)
    }

    /// Why something that is allowed is allowed, "" if there is nothing to say.
    #[must_use]
    pub fn explain(&self, user: &crate::auth::User, request: &Attributes) -> String {
        self.authorizers.explain(user, request, &self.store.view().snapshot())
    }

    /// What is known of a user's permissions in a namespace.
    #[must_use]
    pub fn rules_of(&self, user: &crate::auth::User, namespace: &str) -> UserRules {
        self.authorizers.rules(user, namespace, &self.store.view().snapshot())
    }

    /// Refuses a write of a role or binding that would give away more than its
    /// author has.
    fn check_escalation(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<(), StatusError> {
        let ask = |user: &crate::auth::User, asked: &Attributes, snapshot: &barque_store::Snapshot| {
            self.authorizers.authorize(user, asked, snapshot)
        };
        rbac::check_escalation(&self.rbac, &ask, request, object)
    }

    /// Refuses what the user may not do.
    ///
    /// # Errors
    /// 403 in upstream's words.
    pub fn authorize(&self, context: &RequestContext, request: &Attributes) -> Result<(), StatusError> {
        if context.trusted {
            return Ok(());
        }
        match self.decide(&context.user, request) {
            Decision::Allow => {
                audit::annotate("authorization.k8s.io/decision", "allow");
                Ok(())
            }
            Decision::NoOpinion(reason) | Decision::Deny(reason) => {
                audit::annotate("authorization.k8s.io/decision", "forbid");
                audit::annotate("authorization.k8s.io/reason", reason.as_str());
                Err(authz::forbidden(&context.user, request, &reason))
            }
        }
    }

    /// As [`Pipeline::authorize`], for a verb on a target.
    ///
    /// # Errors
    /// 403 in upstream's words.
    pub fn authorize_target(
        &self,
        context: &RequestContext,
        verb: &str,
        target: &Target,
        subresource: &str,
    ) -> Result<(), StatusError> {
        if context.trusted {
            return Ok(());
        }
        self.authorize(context, &attributes(verb, target, subresource))
    }

    fn timeout(&self, context: &RequestContext) -> Duration {
        context.timeout.unwrap_or(self.options.write_timeout)
    }
}

/// The authorizer's question about a target.
pub(crate) fn attributes(verb: &str, target: &Target, subresource: &str) -> Attributes {
    // A Namespace lies in itself.
    let itself = &*target.resource.storage == "namespaces";
    Attributes {
        verb: verb.to_owned(),
        group: target.resource.group.to_string(),
        version: target.resource.version.to_string(),
        resource: target.resource.plural.to_string(),
        subresource: subresource.to_owned(),
        namespace: if itself { target.name.clone() } else { target.namespace.clone() },
        name: target.name.clone(),
        ..Attributes::default()
    }
}

/// An object in the shape in which its row shows it.
#[must_use]
pub fn shown(resource: &Resource, stored: Object) -> Object {
    match &resource.conversion {
        Some(conversion) => (conversion.from_storage)(stored),
        None => stored,
    }
}

/// An object of a row in the shape in which it is stored.
#[must_use]
pub fn stored(resource: &Resource, object: Object) -> Object {
    match &resource.conversion {
        Some(conversion) => (conversion.to_storage)(object),
        None => object,
    }
}
