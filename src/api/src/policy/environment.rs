//! What expressions of policies and of webhooks' match conditions may refer
//! to.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/cel/compile.go`.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use barque_cel::{DeclType, Env, ObjectType, Program, Type};
use serde_json::json;

use crate::kinds::expressions::Role;
use crate::schema::{self, StructRef, Type as Shape};

/// The variables of a policy that were declared before an expression.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    types: BTreeMap<String, Type>,
}

impl Declared {
    /// Declares a variable for what follows.
    pub fn add(&mut self, name: &str, ty: Type) {
        self.types.insert(name.to_owned(), ty);
    }
}

impl ObjectType for Declared {
    fn name(&self) -> &'static str {
        "variables"
    }

    fn field(&self, name: &str) -> Option<Type> {
        self.types.get(name).cloned()
    }
}

/// Fields of a built-in kind, for the type checker.
struct Built(StructRef);

impl ObjectType for Built {
    fn name(&self) -> &str {
        &self.0.get().name
    }

    fn field(&self, name: &str) -> Option<Type> {
        let name = barque_cel::unescape(name)?;
        self.0.get().field(&name).map(|field| cel_type(&field.ty))
    }
}

/// The type of a shape in expressions. What is text in JSON but has a type of
/// its own in schemas is dynamic: expressions see the JSON.
pub fn cel_type(shape: &Shape) -> Type {
    match shape {
        Shape::String => Type::String,
        Shape::Integer | Shape::Int32 | Shape::Int64 => Type::Int,
        Shape::Boolean => Type::Bool,
        Shape::Number => Type::Double,
        Shape::List { items, .. } => Type::list(cel_type(items)),
        Shape::Map { values, .. } => Type::map(Type::String, cel_type(values)),
        Shape::Struct { def, .. } => Type::Object(Arc::new(Built(def.clone()))),
        _ => Type::Dyn,
    }
}

fn namespace_type() -> Type {
    schema::builtin().reference("io.k8s.api.core.v1.Namespace").map_or(Type::Dyn, |shape| cel_type(&shape))
}

/// `request`: an `AdmissionRequest` without its objects.
fn request_type() -> &'static Arc<DeclType> {
    static TYPE: OnceLock<Arc<DeclType>> = OnceLock::new();
    TYPE.get_or_init(|| {
        let string = json!({"type": "string"});
        let of = |names: &[&str]| {
            let fields: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), string.clone())).collect();
            json!({"type": "object", "properties": fields})
        };
        let (kind, resource) = (of(&["group", "version", "kind"]), of(&["group", "version", "resource"]));
        let schema = json!({"type": "object", "properties": {
            "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "subResource": string, "requestSubResource": string, "name": string, "namespace": string,
            "operation": string, "dryRun": {"type": "boolean"},
            "options": {"type": "object", "x-kubernetes-int-or-string": true},
            "userInfo": {"type": "object", "properties": {
                "username": string, "uid": string, "groups": {"type": "array", "items": string},
                "extra": {"type": "object", "additionalProperties": {"type": "array", "items": string}},
            }},
        }});
        DeclType::from_schema(&schema, false).expect("the schema is an object's")
    })
}

/// The environment of an expression with a role; `object` is the type of the
/// object, where it is to be checked.
pub fn environment(role: Role, has_params: bool, declared: &Declared, object: &Type) -> Env {
    let mut env = Env::kubernetes()
        .variable("object", object.clone())
        .variable("oldObject", object.clone())
        .variable("request", request_type().cel_type());
    if role == Role::WebhookMatchCondition {
        return env.with_authorizer();
    }
    env = env.variable("namespaceObject", namespace_type());
    if has_params {
        env = env.variable("params", Type::Dyn);
    }
    if role != Role::MatchCondition {
        env = env.split_variable(Arc::new(declared.clone()));
    }
    if !matches!(role, Role::Message | Role::AuditAnnotation) {
        env = env.with_authorizer();
    }
    if matches!(role, Role::JsonPatch | Role::ApplyConfiguration) {
        env = env.with_patch_types();
    }
    env
}

/// Compiles an expression and looks at the type of its value.
///
/// # Errors
/// The detail of the field error, as upstream words it.
pub fn compile(text: &str, role: Role, has_params: bool, declared: &Declared) -> Result<Program, String> {
    let env = environment(role, has_params, declared, &Type::Dyn);
    let program = env.compile(text).map_err(|error| format!("compilation failed: {error}"))?;
    let found = program.result_type();
    let is_object = |ty: &Type, name: &str| matches!(ty, Type::Object(object) if object.name() == name);
    let (fits, expected) = match role {
        Role::WebhookMatchCondition | Role::MatchCondition | Role::Validation | Role::DeviceSelector => {
            (*found == Type::Bool, "must evaluate to bool")
        }
        Role::Message => (*found == Type::String, "must evaluate to string"),
        Role::AuditAnnotation => {
            (matches!(found, Type::String | Type::Null), "must evaluate to one of [string null_type]")
        }
        Role::JsonPatch => {
            (matches!(found, Type::List(of) if is_object(of, "JSONPatch")), "must evaluate to list(JSONPatch)")
        }
        Role::ApplyConfiguration => (is_object(found, "Object"), "must evaluate to Object"),
        Role::Variable => (true, ""),
    };
    if fits {
        return Ok(program);
    }
    let several = role == Role::AuditAnnotation;
    Err(if several { expected.to_owned() } else { format!("{expected} but got {found}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_see_what_their_role_allows() {
        let mut declared = Declared::default();
        declared.add("n", Type::Int);
        let said = |text: &str, role: Role| {
            compile(text, role, true, &declared).map(|_| ()).unwrap_or_else(|e| panic!("{text}: {e}"))
        };
        said("object.x == 1 && params.y && variables.n > 2 && namespaceObject.metadata.name == 'a'", Role::Validation);
        said("request.userInfo.groups.exists(g, g == 'x') && has(request.options.dryRun)", Role::WebhookMatchCondition);
        said("authorizer.group('').resource('pods').check('get').allowed()", Role::MatchCondition);
        said("authorizer.requestResource.check('update').allowed() && oldObject == null", Role::Validation);
        said("[JSONPatch{op: 'add', path: '/a', value: 1}]", Role::JsonPatch);
        said("Object{spec: Object.spec{replicas: variables.n}}", Role::ApplyConfiguration);
        for (text, role, why) in [
            ("variables.m > 1", Role::Validation, "undefined field 'm'"),
            ("variables.n > 1", Role::MatchCondition, "undeclared reference to 'variables'"),
            ("params.x == 1", Role::WebhookMatchCondition, "undeclared reference to 'params'"),
            ("authorizer.path('/').check('get').reason()", Role::Message, "undeclared reference to 'authorizer'"),
            ("request.nope == 'x'", Role::Validation, "undefined field 'nope'"),
            ("namespaceObject.spec.nope == 'x'", Role::Validation, "undefined field 'nope'"),
            ("1 + 1", Role::Validation, "must evaluate to bool but got int"),
            ("object.x", Role::Message, "must evaluate to string but got dyn"),
            ("true", Role::AuditAnnotation, "must evaluate to one of [string null_type]"),
            ("Object{}", Role::JsonPatch, "must evaluate to list(JSONPatch) but got Object"),
        ] {
            let error = compile(text, role, true, &declared).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
