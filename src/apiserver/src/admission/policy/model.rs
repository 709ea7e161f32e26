//! Policies and bindings in the form in which requests use them. What has not
//! changed is not compiled again.

use std::collections::HashMap;
use std::sync::Arc;

use barque_api::Object;
use barque_api::kinds::expressions::Role;
use barque_api::object::texts;
use barque_api::policy::{Declared, compile};
use barque_api::selector::LabelSelector;
use barque_cel::{Program, Type};
use barque_store::{Revision, Snapshot};
use parking_lot::Mutex;
use serde_json::Value;

use super::super::webhook::Rule;
use super::evaluate::{Condition, Variable};

/// Which of the two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PolicyKind {
    Validating,
    Mutating,
}

impl PolicyKind {
    /// Storage names of the policies and of their bindings.
    fn storage(self) -> (&'static str, &'static str) {
        match self {
            Self::Validating => (
                "validatingadmissionpolicies.admissionregistration.k8s.io",
                "validatingadmissionpolicybindings.admissionregistration.k8s.io",
            ),
            Self::Mutating => (
                "mutatingadmissionpolicies.admissionregistration.k8s.io",
                "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
            ),
        }
    }
}

/// `MatchResources`: which requests something is about.
#[derive(Debug)]
pub(super) struct Constraints {
    pub rules: Vec<(Rule, Vec<String>)>,
    pub excluded: Vec<(Rule, Vec<String>)>,
    pub equivalent: bool,
    pub namespaces: LabelSelector,
    pub objects: LabelSelector,
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

impl Constraints {
    fn parse(value: &Value) -> Self {
        let selector = |field: &str| match value.get(field).filter(|s| !s.is_null()) {
            None => LabelSelector::everything(),
            // Validation keeps out what cannot be read; it selects nothing.
            Some(selector) => LabelSelector::from_json(selector).unwrap_or_else(|_| LabelSelector::nothing()),
        };
        let rules = |field: &str| {
            list(value, field).iter().map(|rule| (Rule::parse(rule), texts(rule.get("resourceNames")))).collect()
        };
        Self {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            equivalent: value["matchPolicy"] != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }
}

/// An expression with its text.
#[derive(Debug)]
pub(super) struct Expression {
    pub text: String,
    pub program: Result<Program, String>,
}

/// One of `validations`.
#[derive(Debug)]
pub(super) struct Validation {
    pub rule: Expression,
    pub message: String,
    pub message_expression: Option<Expression>,
    pub reason: String,
}

/// One of `mutations`.
#[derive(Debug)]
pub(super) enum Mutation {
    Apply(Expression),
    JsonPatch(Expression),
}

/// A compiled policy.
#[derive(Debug)]
pub(super) struct Definition {
    pub name: String,
    pub ignore_failures: bool,
    pub reinvoke: bool,
    pub constraints: Constraints,
    /// apiVersion and kind.
    pub param_kind: Option<(String, String)>,
    pub conditions: Vec<Condition>,
    pub variables: Vec<Variable>,
    pub validations: Vec<Validation>,
    pub annotations: Vec<(String, Expression)>,
    pub mutations: Vec<Mutation>,
}

impl Definition {
    pub(super) fn parse(policy: &Object) -> Self {
        let spec = policy.get(&["spec"]).cloned().unwrap_or_default();
        let has_params = spec["paramKind"].is_object();
        let mut declared = Declared::default();
        let expression = |owner: &Value, field: &str, role: Role, declared: &Declared| {
            let text = text(owner, field).trim().to_owned();
            let program = compile(&text, role, has_params, declared);
            Expression { text, program }
        };
        let conditions = list(&spec, "matchConditions")
            .iter()
            .map(|condition| {
                let Expression { text, program } = expression(condition, "expression", Role::MatchCondition, &declared);
                Condition { text, program }
            })
            .collect();
        let mut variables = Vec::new();
        for variable in list(&spec, "variables") {
            let name = text(variable, "name");
            let program = expression(variable, "expression", Role::Variable, &declared).program;
            declared.add(&name, program.as_ref().map_or(Type::Dyn, |program| program.result_type().clone()));
            variables.push(Variable { name, program });
        }
        let validations = list(&spec, "validations")
            .iter()
            .map(|validation| Validation {
                rule: expression(validation, "expression", Role::Validation, &declared),
                message: text(validation, "message").trim().to_owned(),
                message_expression: Some(expression(validation, "messageExpression", Role::Message, &declared))
                    .filter(|expression| !expression.text.is_empty()),
                reason: text(validation, "reason"),
            })
            .collect();
        let annotations = list(&spec, "auditAnnotations")
            .iter()
            .map(|annotation| {
                (text(annotation, "key"), expression(annotation, "valueExpression", Role::AuditAnnotation, &declared))
            })
            .collect();
        let mutations = list(&spec, "mutations")
            .iter()
            .map(|mutation| {
                let (json, apply) = (&mutation["jsonPatch"], &mutation["applyConfiguration"]);
                if mutation["patchType"] == "JSONPatch" {
                    Mutation::JsonPatch(expression(json, "expression", Role::JsonPatch, &declared))
                } else {
                    Mutation::Apply(expression(apply, "expression", Role::ApplyConfiguration, &declared))
                }
            })
            .collect();
        Self {
            name: policy.name().to_owned(),
            ignore_failures: spec["failurePolicy"] == "Ignore",
            reinvoke: spec["reinvocationPolicy"] == "IfNeeded",
            constraints: Constraints::parse(&spec["matchConstraints"]),
            param_kind: has_params.then(|| (text(&spec["paramKind"], "apiVersion"), text(&spec["paramKind"], "kind"))),
            conditions,
            variables,
            validations,
            annotations,
            mutations,
        }
    }
}

/// `paramRef` of a binding.
#[derive(Debug)]
pub(super) struct ParamRef {
    pub name: String,
    pub namespace: String,
    pub selector: Option<Value>,
    pub deny_missing: bool,
}

/// A binding.
#[derive(Debug)]
pub(super) struct Binding {
    pub name: String,
    pub policy: String,
    pub constraints: Option<Constraints>,
    pub param_ref: Option<ParamRef>,
    /// `Deny`, `Warn`, `Audit`.
    pub actions: Vec<String>,
}

impl Binding {
    fn parse(binding: &Object) -> Self {
        let spec = binding.get(&["spec"]).cloned().unwrap_or_default();
        let reference = &spec["paramRef"];
        Self {
            name: binding.name().to_owned(),
            policy: text(&spec, "policyName"),
            constraints: spec["matchResources"].is_object().then(|| Constraints::parse(&spec["matchResources"])),
            param_ref: reference.is_object().then(|| ParamRef {
                name: text(reference, "name"),
                namespace: text(reference, "namespace"),
                selector: Some(reference["selector"].clone()).filter(|selector| !selector.is_null()),
                deny_missing: reference["parameterNotFoundAction"] == "Deny",
            }),
            actions: texts(spec.get("validationActions")),
        }
    }
}

/// A policy that is bound.
#[derive(Debug)]
pub(super) struct Policy {
    pub definition: Arc<Definition>,
    pub bindings: Vec<Binding>,
}

#[derive(Default)]
struct Made {
    stamp: Option<(Revision, Revision)>,
    compiled: HashMap<String, (Revision, Arc<Definition>)>,
    policies: Arc<Vec<Policy>>,
}

/// The bound policies of one kind, remade when a policy or binding has
/// changed. As many are kept as there are.
pub(super) struct Policies {
    kind: PolicyKind,
    made: Mutex<Made>,
}

impl Policies {
    pub(super) fn new(kind: PolicyKind) -> Self {
        Self { kind, made: Mutex::default() }
    }

    /// Policies by name, each with its bindings by name. `None` if there are
    /// none: that costs two look-ups.
    pub(super) fn of(&self, snapshot: &Snapshot) -> Option<Arc<Vec<Policy>>> {
        let (policies, bindings) = self.kind.storage();
        if snapshot.count(policies) == 0 || snapshot.count(bindings) == 0 {
            return None;
        }
        let stamp = Some((snapshot.changed(policies), snapshot.changed(bindings)));
        let mut made = self.made.lock();
        if made.stamp != stamp {
            let mut bound: HashMap<String, Vec<Binding>> = HashMap::new();
            for record in snapshot.list(bindings, None) {
                let binding = Binding::parse(record.object());
                bound.entry(binding.policy.clone()).or_default().push(binding);
            }
            let before = std::mem::take(&mut made.compiled);
            let mut all = Vec::new();
            for record in snapshot.list(policies, None) {
                let name = record.object().name().to_owned();
                let Some(bindings) = bound.remove(&name) else { continue };
                let definition = match before.get(&name) {
                    Some((revision, definition)) if *revision == record.revision() => Arc::clone(definition),
                    _ => Arc::new(Definition::parse(record.object())),
                };
                made.compiled.insert(name, (record.revision(), Arc::clone(&definition)));
                all.push(Policy { definition, bindings });
            }
            made.policies = Arc::new(all);
            made.stamp = stamp;
        }
        Some(Arc::clone(&made.policies)).filter(|policies| !policies.is_empty())
    }
}
