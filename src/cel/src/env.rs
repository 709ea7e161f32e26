//! The environment of an expression, and the compiled expression.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::Expr;
use crate::check::{Checked, check};
use crate::error::CompileError;
use crate::estimate::{Estimate, SizeHints, estimate};
use crate::eval::{Evaluated, Variables, evaluate};
use crate::parse::parse;
use crate::plan::{Node, plan};
use crate::types::{ObjectType, Type};

/// Which variables, types and functions an expression may use.
#[derive(Clone, Default)]
pub struct Env {
    pub(crate) variables: HashMap<Arc<str>, Type>,
    /// Variables whose fields are variables of their own.
    pub(crate) split: Vec<Arc<str>>,
    patches: bool,
}

impl Env {
    /// All that Kubernetes 1.36 offers, without any variables.
    #[must_use]
    pub fn kubernetes() -> Self {
        Self::default()
    }

    /// With one more variable, perhaps replacing one of the name. Dots in the
    /// name are allowed: `authorizer.requestResource`.
    #[must_use]
    pub fn variable(mut self, name: &str, ty: Type) -> Self {
        self.variables.insert(Arc::from(name), ty);
        self
    }

    /// With a variable whose fields are looked up one by one when they are
    /// needed: `variables.x` asks for a variable of that name.
    #[must_use]
    pub fn split_variable(mut self, object: Arc<dyn ObjectType>) -> Self {
        let name: Arc<str> = Arc::from(object.name());
        self.split.push(Arc::clone(&name));
        self.variables.insert(name, Type::Object(object));
        self
    }

    /// With the types `Object`, `Object.<path>` and `JSONPatch`, and the
    /// function `jsonpatch.escapeKey`, for mutations.
    #[must_use]
    pub fn with_patch_types(mut self) -> Self {
        self.patches = true;
        self
    }

    /// The authorizer's variables, `authorizer` and
    /// `authorizer.requestResource`.
    #[must_use]
    pub fn with_authorizer(self) -> Self {
        self.variable("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"))
            .variable("authorizer.requestResource", Type::Opaque("kubernetes.authorization.ResourceCheck"))
    }

    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.patches || name != "jsonpatch.escapeKey"
    }

    /// An object type by its name.
    pub(crate) fn object(&self, name: &str) -> Option<Arc<dyn ObjectType>> {
        if !self.patches {
            return None;
        }
        if name == "JSONPatch" {
            return Some(Arc::new(JsonPatchType));
        }
        (name == "Object" || name.starts_with("Object."))
            .then(|| Arc::new(PatchObject { name: name.to_owned() }) as Arc<dyn ObjectType>)
    }

    /// Parses, checks and plans an expression.
    ///
    /// # Errors
    /// Every problem with its place.
    pub fn compile(&self, text: &str) -> Result<Program, CompileError> {
        let (expr, _) = parse(text)?;
        let checked = check(self, &expr).map_err(|issues| CompileError::new(text, issues))?;
        let node = plan(self, &expr, &checked);
        Ok(Program { result_type: checked.ty(&expr).clone(), expr, checked: Arc::new(checked), node })
    }
}

/// `Object` and everything below: any field of any type.
struct PatchObject {
    name: String,
}

impl ObjectType for PatchObject {
    fn name(&self) -> &str {
        &self.name
    }

    fn field(&self, _: &str) -> Option<Type> {
        Some(Type::Dyn)
    }

    fn constructible(&self) -> bool {
        true
    }
}

/// An operation of a JSON patch.
struct JsonPatchType;

impl ObjectType for JsonPatchType {
    fn name(&self) -> &'static str {
        "JSONPatch"
    }

    fn field(&self, name: &str) -> Option<Type> {
        match name {
            "op" | "from" | "path" => Some(Type::String),
            "value" => Some(Type::Dyn),
            _ => None,
        }
    }

    fn constructible(&self) -> bool {
        true
    }
}

/// A compiled expression. Cheap to share, safe to keep.
pub struct Program {
    expr: Expr,
    checked: Arc<Checked>,
    node: Node,
    result_type: Type,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({})", self.result_type)
    }
}

impl Program {
    /// Type of its value.
    #[must_use]
    pub fn result_type(&self) -> &Type {
        &self.result_type
    }

    /// Whether it mentions a variable.
    #[must_use]
    pub fn mentions(&self, variable: &str) -> bool {
        self.node.mentions(variable)
    }

    /// The least and the most that it can cost, given how large variables can
    /// be.
    #[must_use]
    pub fn estimate(&self, sizes: &dyn SizeHints) -> Estimate {
        estimate(&self.expr, &self.checked, sizes)
    }

    /// Evaluates it. The cost is what was spent even when it failed.
    #[must_use]
    pub fn evaluate<'a, V: Variables<'a> + ?Sized>(&'a self, variables: &V, limit: u64) -> Evaluated<'a> {
        evaluate(&self.node, variables, limit)
    }
}
