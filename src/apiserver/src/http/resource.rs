//! Requests about objects and collections: the same few lines for every kind.

use std::sync::Arc;

use axum::body::Body;
use barque_api::patch::PatchType;
use barque_api::resource::Verb;
use barque_api::{Object, Reason, Resource, StatusError};
use barque_store::Revision;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::Api;
use super::handle::{Call, method_not_allowed, no_such_resource};
use super::list::consistency;
use super::metrics::Subject;
use super::negotiate::{Accepted, BodyFormat, Offer, Shape, accepted, media_type, unsupported};
use super::path::ResourcePath;
use super::present::{Include, Presenter, encode};
use super::query::{ListOptions, delete_options, parse_version};
use super::respond::{add_warnings, json_response, success};
use super::select::Selector;
use crate::audit;
use crate::pipeline::{Consistency, Decoded, DeleteOptions, Door, Patch, Target, Written, attributes, scale_of};

/// Kinds whose DELETE answers with the object even when it is gone.
const RETURN_DELETED: &[&str] = &["pods", "services", "serviceaccounts"];

impl Api {
    pub(super) async fn resource(
        self: &Arc<Self>,
        call: Call,
        path: ResourcePath,
        subject: &mut Subject,
    ) -> Result<Response<Body>, StatusError> {
        let registry = self.pipeline.registry();
        if path.group.is_empty() && path.plural == "bindings" && path.name.is_empty() && call.method == Method::POST {
            return self.binding_collection(call, &path).await;
        }
        let mut registry = registry;
        if registry.by_path(&path.group, &path.version, &path.plural).is_none() {
            // A kind that another master has just begun to serve.
            self.pipeline.snapshot(Consistency::Linearizable).await?;
            registry = self.pipeline.registry();
        }
        let row = registry.by_path(&path.group, &path.version, &path.plural).ok_or_else(no_such_resource)?;
        subject.group = row.group.to_string();
        subject.resource = row.plural.to_string();
        let known = path.subresource.is_empty() || row.subresource(&path.subresource).is_some();
        let misplaced = if row.namespaced {
            path.namespace.is_empty() && !path.name.is_empty()
        } else {
            !path.namespace.is_empty()
        };
        if !known || misplaced || !path.rest.is_empty() {
            return Err(no_such_resource());
        }
        subject.subresource.clone_from(&path.subresource);
        let deprecation = row.deprecation.clone();
        let target = Target::new(row, path.namespace, path.name);
        let mut response = match (path.subresource.as_str(), target.name.is_empty()) {
            ("", _) if path.watch => self.older_watch(call, target, subject).await?,
            (_, _) if path.watch => return Err(no_such_resource()),
            ("", true) => self.collection(call, target, subject).await?,
            ("", false) => self.object(call, target).await?,
            (subresource, _) => self.subresource(call, target, subresource).await?,
        };
        if let Some(text) = deprecation {
            add_warnings(&mut response, &[text.into_owned()]);
        }
        Ok(response)
    }

    async fn collection(
        self: &Arc<Self>,
        call: Call,
        target: Target,
        subject: &mut Subject,
    ) -> Result<Response<Body>, StatusError> {
        let row = Arc::clone(&target.resource);
        match call.method {
            Method::GET | Method::HEAD => {
                let options = ListOptions::parse(&call.query)?;
                self.read_collection(call, target, options, subject).await
            }
            Method::POST => {
                allow(&row, Verb::Create)?;
                if row.namespaced && target.namespace.is_empty() {
                    return Err(method_not_allowed());
                }
                let accepted = call.accepted_for(&row)?;
                let mut context = call.writer("CreateOptions", false)?;
                let (object, duplicates) = call.read_object(self).await?;
                context.duplicate_fields = duplicates;
                let written = self.pipeline.create(&context, &target, object).await?;
                self.written(&call, &row, &accepted, &written)
            }
            Method::DELETE => {
                allow(&row, Verb::DeleteCollection)?;
                if row.namespaced && target.namespace.is_empty() {
                    return Err(method_not_allowed());
                }
                let accepted = call.accepted_for(&row)?;
                let (delete, dry_run) = self.delete_options(&call)?;
                let mut context = call.writer("DeleteOptions", false)?;
                context.dry_run = dry_run;
                self.pipeline.authorize_target(&context, "deletecollection", &target, "")?;
                let options = ListOptions { resource_version: None, ..ListOptions::parse(&call.query)? };
                let selector = Selector::parse(&row, &options)?;
                let page = self.page(&target, &options, &selector).await?;
                let records = self.pipeline.delete_collection(&context, &target, &delete, page.records).await?;
                let presenter = self.presenter(&call, &row, &accepted)?;
                let revision = self.pipeline.store().view().revision();
                let page = super::list::Page { revision, records, continuation: None, remaining: None };
                self.list_response(page, presenter, &accepted).await
            }
            _ => Err(method_not_allowed()),
        }
    }

    async fn read_collection(
        self: &Arc<Self>,
        call: Call,
        target: Target,
        options: ListOptions,
        subject: &mut Subject,
    ) -> Result<Response<Body>, StatusError> {
        let row = Arc::clone(&target.resource);
        let verb = if options.watch { Verb::Watch } else { Verb::List };
        allow(&row, verb)?;
        subject.verb = verb.as_str();
        let selector = Selector::parse(&row, &options)?;
        let mut asked = attributes(verb.as_str(), &target, "");
        asked.field_selector.clone_from(&options.field_selector);
        asked.label_selector.clone_from(&options.label_selector);
        selector.only_name().unwrap_or_default().clone_into(&mut asked.name);
        self.pipeline.authorize(&call.reader(), &asked)?;
        let accepted = accepted(&call.headers, &call.query, Offer::of(&row, options.watch))?;
        let presenter = self.presenter(&call, &row, &accepted)?;
        if options.watch {
            return self.watch(target, options, selector, presenter).await;
        }
        let page = self.page(&target, &options, &selector).await?;
        self.list_response(page, presenter, &accepted).await
    }

    /// `.../watch/...`: what came before `?watch=true` and is still served.
    async fn older_watch(
        self: &Arc<Self>,
        call: Call,
        mut target: Target,
        subject: &mut Subject,
    ) -> Result<Response<Body>, StatusError> {
        if call.method != Method::GET {
            return Err(method_not_allowed());
        }
        let mut options = ListOptions::parse_as(&call.query, true)?;
        let name = std::mem::take(&mut target.name);
        if !name.is_empty() {
            if options.field_selector.is_empty() {
                options.field_selector = format!("metadata.name={name}");
            } else if Selector::parse(&target.resource, &options)?.only_name() != Some(name.as_str()) {
                let why = "fieldSelector metadata.name doesn't match requested name";
                return Err(StatusError::bad_request(why));
            }
        }
        self.read_collection(call, target, options, subject).await
    }

    async fn object(self: &Arc<Self>, call: Call, target: Target) -> Result<Response<Body>, StatusError> {
        let row = Arc::clone(&target.resource);
        let accepted = call.accepted_for(&row)?;
        match call.method {
            Method::GET | Method::HEAD => {
                allow(&row, Verb::Get)?;
                let version = parse_version(call.query.text("resourceVersion"))?;
                let record = self.pipeline.get(&call.reader(), &target, consistency(version)).await?;
                let bytes = self.presenter(&call, &row, &accepted)?.document(&record);
                self.answer_json(&accepted, StatusCode::OK, bytes)
            }
            Method::PUT => {
                allow(&row, Verb::Update)?;
                self.put(call, target, Door::Main, &accepted).await
            }
            Method::PATCH => {
                allow(&row, Verb::Patch)?;
                self.patch_object(call, target, Door::Main, &accepted).await
            }
            Method::DELETE => {
                allow(&row, Verb::Delete)?;
                let (delete, dry_run) = self.delete_options(&call)?;
                let mut context = call.writer("DeleteOptions", false)?;
                context.dry_run = dry_run;
                let written = self.pipeline.delete(&context, &target, &delete).await?;
                if written.removed && !RETURN_DELETED.contains(&&*row.storage) {
                    let mut details = json!({"name": target.name, "kind": row.plural, "uid": written.record.uid()});
                    if !row.group.is_empty() {
                        details["group"] = json!(row.group);
                    }
                    let status = success(StatusCode::OK, Some(details));
                    return self.answer_json(&accepted, StatusCode::OK, encode(&status));
                }
                self.written(&call, &row, &accepted, &Written { created: false, ..written })
            }
            _ => Err(method_not_allowed()),
        }
    }

    async fn put(
        self: &Arc<Self>,
        call: Call,
        target: Target,
        door: Door,
        accepted: &Accepted,
    ) -> Result<Response<Body>, StatusError> {
        let mut context = call.writer("UpdateOptions", false)?;
        let (object, duplicates) = call.read_object(self).await?;
        context.duplicate_fields = duplicates;
        let written = self.pipeline.update(&context, &target, door, object).await?;
        self.written(&call, &target.resource, accepted, &written)
    }

    async fn patch_object(
        self: &Arc<Self>,
        call: Call,
        target: Target,
        door: Door,
        accepted: &Accepted,
    ) -> Result<Response<Body>, StatusError> {
        let (patch, duplicates) = self.read_patch(&call)?;
        let mut context = call.writer("PatchOptions", patch.kind == PatchType::Apply)?;
        context.duplicate_fields = duplicates;
        let written = self.pipeline.patch(&context, &target, door, &patch).await?;
        self.written(&call, &target.resource, accepted, &written)
    }

    fn read_patch(&self, call: &Call) -> Result<(Patch, Vec<String>), StatusError> {
        let media = media_type(&call.headers);
        let kind =
            PatchType::from_content_type(&media).ok_or_else(|| unsupported(&PatchType::CONTENT_TYPES.join(", ")))?;
        let format = if kind == PatchType::Apply { BodyFormat::Yaml } else { BodyFormat::Json };
        let Decoded { value, duplicates } = call.decode(format, self)?;
        Ok((Patch { kind, body: value }, duplicates))
    }

    async fn subresource(
        self: &Arc<Self>,
        call: Call,
        target: Target,
        subresource: &str,
    ) -> Result<Response<Body>, StatusError> {
        let row = Arc::clone(&target.resource);
        let accepted = match subresource {
            "log" => None,
            // These have kinds of their own.
            "scale" | "eviction" | "binding" => Some(call.accepted()?),
            _ => Some(call.accepted_for(&row)?),
        };
        let method = call.method.clone();
        let reads = matches!(method, Method::GET | Method::HEAD);
        let door = match subresource {
            "status" => Some(Door::Status),
            other => row.subresource(other).and_then(|sub| sub.part).map(Door::Part),
        };
        if let (Some(door), Some(accepted)) = (door, &accepted) {
            return self.part(call, target, door, accepted).await;
        }
        match (subresource, accepted) {
            ("log", _) if reads => self.pod_log(&call.reader(), &target, &call.query).await,
            ("scale", Some(accepted)) => self.scale(call, target, &accepted).await,
            ("finalize", Some(accepted)) if method == Method::PUT => {
                let context = call.writer("UpdateOptions", false)?;
                let (object, _) = call.read_object(self).await?;
                let written = self.pipeline.finalize(&context, &target, object).await?;
                self.written(&call, &row, &accepted, &written)
            }
            ("binding", Some(accepted)) if method == Method::POST => {
                let context = call.writer("CreateOptions", false)?;
                let (binding, _) = call.read_object(self).await?;
                self.bind(&context, &target, binding, &accepted).await
            }
            ("token", Some(accepted)) if method == Method::POST => self.token_request(call, target, &accepted).await,
            ("eviction", Some(accepted)) if method == Method::POST => self.eviction(call, target, &accepted).await,
            _ => Err(method_not_allowed()),
        }
    }

    /// A subresource in the object's own shape.
    async fn part(
        self: &Arc<Self>,
        call: Call,
        target: Target,
        door: Door,
        accepted: &Accepted,
    ) -> Result<Response<Body>, StatusError> {
        let verbs = target.resource.subresource(door.subresource()).map_or(&[][..], |sub| sub.verbs);
        match call.method {
            Method::GET | Method::HEAD if verbs.contains(&Verb::Get) => {
                let version = parse_version(call.query.text("resourceVersion"))?;
                let context = call.reader();
                self.pipeline.authorize_target(&context, "get", &target, door.subresource())?;
                let record = self.pipeline.fetch(&target, consistency(version)).await?;
                let bytes = self.presenter(&call, &target.resource, accepted)?.document(&record);
                self.answer_json(accepted, StatusCode::OK, bytes)
            }
            Method::PUT if verbs.contains(&Verb::Update) => self.put(call, target, door, accepted).await,
            Method::PATCH if verbs.contains(&Verb::Patch) => self.patch_object(call, target, door, accepted).await,
            _ => Err(method_not_allowed()),
        }
    }

    async fn scale(
        self: &Arc<Self>,
        call: Call,
        target: Target,
        accepted: &Accepted,
    ) -> Result<Response<Body>, StatusError> {
        if accepted.shape != Shape::Own {
            let why = "a Scale is only shown as itself";
            return Err(StatusError::new(Reason::NotAcceptable, why));
        }
        let scale = match call.method {
            Method::GET | Method::HEAD => {
                let version = parse_version(call.query.text("resourceVersion"))?;
                self.pipeline.get_scale(&call.reader(), &target, consistency(version)).await?
            }
            Method::PUT => {
                let context = call.writer("UpdateOptions", false)?;
                let (object, _) = call.read_object(self).await?;
                scale_of(&target.resource, &self.pipeline.update_scale(&context, &target, object).await?.record)
            }
            Method::PATCH => {
                let (patch, _) = self.read_patch(&call)?;
                let context = call.writer("PatchOptions", patch.kind == PatchType::Apply)?;
                scale_of(&target.resource, &self.pipeline.patch_scale(&context, &target, &patch).await?.record)
            }
            _ => return Err(method_not_allowed()),
        };
        self.answer_json(accepted, StatusCode::OK, encode(&scale.0))
    }

    async fn eviction(
        self: &Arc<Self>,
        call: Call,
        target: Target,
        accepted: &Accepted,
    ) -> Result<Response<Body>, StatusError> {
        let (eviction, _) = call.read_object(self).await?;
        let named = eviction.name();
        if !named.is_empty() && named != target.name {
            return Err(StatusError::bad_request("name in URL does not match name in Eviction object"));
        }
        let body = eviction.get(&["deleteOptions"]).filter(|options| !options.is_null());
        let (options, dry_run) = match body {
            Some(body) => delete_options(&call.query, Some(body))?,
            None => (DeleteOptions::default(), false),
        };
        let mut context = call.writer("CreateOptions", false)?;
        context.dry_run |= dry_run;
        self.pipeline.evict(&context, &target, &options).await?;
        self.answer_json(accepted, StatusCode::CREATED, encode(&success(StatusCode::CREATED, None)))
    }

    async fn bind(
        &self,
        context: &crate::pipeline::RequestContext,
        target: &Target,
        binding: Object,
        accepted: &Accepted,
    ) -> Result<Response<Body>, StatusError> {
        self.pipeline.bind(context, target, binding).await?;
        self.answer_json(accepted, StatusCode::CREATED, encode(&success(StatusCode::CREATED, None)))
    }

    /// `POST .../bindings`: as `pods/NAME/binding`, with the name in the body.
    async fn binding_collection(&self, call: Call, path: &ResourcePath) -> Result<Response<Body>, StatusError> {
        let accepted = call.accepted()?;
        let context = call.writer("CreateOptions", false)?;
        let (binding, _) = call.read_object(self).await?;
        let target = self.pipeline.target("pods", &path.namespace, binding.name())?;
        if path.version != "v1" || target.namespace.is_empty() || target.name.is_empty() {
            return Err(StatusError::bad_request("a binding needs the namespace and the name of its pod"));
        }
        self.bind(&context, &target, binding, &accepted).await
    }

    fn delete_options(&self, call: &Call) -> Result<(DeleteOptions, bool), StatusError> {
        if call.body.is_empty() {
            return delete_options(&call.query, None);
        }
        let format = super::negotiate::body_format(&call.headers)?;
        let decoded = call.decode(format, self)?;
        delete_options(&call.query, Some(&decoded.value))
    }

    fn presenter(&self, call: &Call, row: &Arc<Resource>, accepted: &Accepted) -> Result<Presenter, StatusError> {
        Ok(Presenter {
            resource: Arc::clone(row),
            format: accepted.format,
            shape: accepted.shape.clone(),
            include: Include::parse(&call.query)?,
            now: self.pipeline.world().now(),
        })
    }

    fn written(
        &self,
        call: &Call,
        row: &Arc<Resource>,
        accepted: &Accepted,
        written: &Written,
    ) -> Result<Response<Body>, StatusError> {
        let presenter = self.presenter(call, row, accepted)?;
        let bytes = if written.record.revision() == Revision(0) {
            // Made up by a dry run: there is no version to name.
            let mut object = crate::pipeline::shown(row, Object::clone(written.record.object()));
            object.remove(&["metadata", "resourceVersion"]);
            presenter.of_object(&object, None)
        } else {
            presenter.document(&written.record)
        };
        let created = written.created || call.method == Method::POST;
        let code = if created { StatusCode::CREATED } else { StatusCode::OK };
        let mut response = self.answer_json(accepted, code, bytes)?;
        for (key, value) in &written.annotations {
            audit::annotate(key, value.as_str());
        }
        add_warnings(&mut response, &written.warnings);
        Ok(response)
    }

    fn answer_json(&self, accepted: &Accepted, code: StatusCode, bytes: Bytes) -> Result<Response<Body>, StatusError> {
        json_response(code, accepted, self.options.gzip_threshold_bytes, bytes)
    }
}

fn allow(row: &Resource, verb: Verb) -> Result<(), StatusError> {
    if row.verbs.contains(&verb) { Ok(()) } else { Err(method_not_allowed()) }
}
