//! `OwnerReferencesPermissionEnforcement`: an object's owners decide about its
//! life; only who could delete it may choose them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use barque_api::object::OwnerReference;
use barque_api::resource::split_api_version;
use barque_api::{Object, Registry, StatusError};

use crate::auth::{Attributes, Authorizer, Decision};
use crate::pipeline::{Admission, AdmissionRequest, Admitted, Operation};

/// See the module's documentation.
pub(super) struct PermissionEnforcement {
    authorizer: Arc<dyn Authorizer>,
    registry: Arc<ArcSwap<Registry>>,
}

impl PermissionEnforcement {
    pub(super) fn new(authorizer: Arc<dyn Authorizer>, registry: Arc<ArcSwap<Registry>>) -> Self {
        Self { authorizer, registry }
    }

    fn may(&self, request: &AdmissionRequest<'_>, asked: &Attributes) -> Result<(), String> {
        match self.authorizer.authorize(&request.context.user, asked, request.snapshot) {
            Decision::Allow => Ok(()),
            Decision::NoOpinion(why) | Decision::Deny(why) => Err(why),
        }
    }

    /// Whether the user may set finalizers on an owner.
    fn blocks(
        &self,
        request: &AdmissionRequest<'_>,
        object: &Object,
        owner: &OwnerReference,
    ) -> Result<(), StatusError> {
        let (group, version) = split_api_version(&owner.api_version);
        let registry = self.registry.load();
        let Some(row) = registry.by_kind(group, version, &owner.kind) else {
            let why = format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {}",
                owner.api_version, owner.kind
            );
            return Err(super::forbidden(request, object, why));
        };
        let asked = Attributes {
            verb: "update".to_owned(),
            group: row.group.to_string(),
            resource: row.plural.to_string(),
            subresource: "finalizers".to_owned(),
            namespace: if row.namespaced { request.target.namespace.clone() } else { String::new() },
            name: owner.name.clone(),
            ..Attributes::default()
        };
        self.may(request, &asked).map_err(|why| {
            let why = format!(
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers \
                 on: {why}, "
            );
            super::forbidden(request, object, why)
        })
    }
}

impl Admission for PermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let concerned = matches!(request.operation, Operation::Create | Operation::Update)
            && request.subresource != "status"
            && !request.context.trusted;
        let new = object.owner_references();
        let old = request.old.map(Object::owner_references).unwrap_or_default();
        if !concerned || new == old {
            return Ok(Admitted::default());
        }
        // Who creates an object may choose its first owners, blocking or not.
        if request.operation == Operation::Update {
            let target = request.target;
            let asked = Attributes {
                verb: "delete".to_owned(),
                group: target.resource.group.to_string(),
                resource: target.resource.plural.to_string(),
                namespace: target.namespace.clone(),
                name: target.name.clone(),
                ..Attributes::default()
            };
            self.may(request, &asked).map_err(|why| {
                super::forbidden(
                    request,
                    object,
                    format!("cannot set an ownerRef on a resource you can't delete: {why}, "),
                )
            })?;
        }
        let blocked = |owner: &OwnerReference| owner.block_owner_deletion == Some(true);
        for owner in new.iter().filter(|owner| blocked(owner)) {
            let before = old.iter().any(|other| other.uid == owner.uid && blocked(other));
            if !before {
                self.blocks(request, object, owner)?;
            }
        }
        Ok(Admitted::default())
    }
}
