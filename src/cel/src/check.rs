//! The type checker.
//!
//! Rules and messages: `cel-go/checker`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Comprehension, Expr, Kind, Loop};
use crate::declarations::{Overload, functions, type_by_name};
use crate::env::Env;
use crate::error::Issue;
use crate::library::{regex, time};
use crate::types::{Mapping, ObjectType, Type, most_general, signature};
use crate::value::Value;

/// What the checker found out, by the ids of expressions.
pub(crate) struct Checked {
    types: HashMap<u32, Type>,
    calls: HashMap<u32, Resolved>,
    names: HashMap<u32, Name>,
}

/// Which function a call calls.
pub(crate) struct Resolved {
    /// Its full name.
    pub function: &'static str,
    /// Whether what stands before the dot is part of the name.
    pub namespaced: bool,
    /// The signatures that fit.
    pub overloads: Vec<&'static Overload>,
}

/// What a name names.
#[derive(Clone)]
pub(crate) enum Name {
    /// A variable of a loop.
    Local(Arc<str>),
    /// A variable of the environment.
    Variable(Arc<str>),
    /// A type.
    Type(Type),
}

impl Checked {
    /// Type of an expression.
    pub fn ty(&self, expr: &Expr) -> &Type {
        self.types.get(&expr.id).unwrap_or(&Type::Dyn)
    }

    /// The function of a call.
    pub fn call(&self, expr: &Expr) -> Option<&Resolved> {
        self.calls.get(&expr.id)
    }

    /// What an identifier or qualified name names.
    pub fn name(&self, expr: &Expr) -> Option<&Name> {
        self.names.get(&expr.id)
    }
}

/// Checks an expression.
pub(crate) fn check(env: &Env, expr: &Expr) -> Result<Checked, Vec<Issue>> {
    let mut checker = Checker {
        env,
        mapping: Mapping::default(),
        fresh: 0,
        scopes: Vec::new(),
        issues: Vec::new(),
        out: Checked { types: HashMap::new(), calls: HashMap::new(), names: HashMap::new() },
    };
    checker.check(expr);
    if !checker.issues.is_empty() {
        return Err(checker.issues);
    }
    let Checker { mapping, mut out, .. } = checker;
    for ty in out.types.values_mut() {
        *ty = mapping.substitute(ty, true);
    }
    let mut issues = Vec::new();
    homogeneous(expr, &out, &mut issues);
    if issues.is_empty() { Ok(out) } else { Err(issues) }
}

/// Elements of a list or map that is written down must be of one type, except
/// in the arguments of `format`.
fn homogeneous(expr: &Expr, checked: &Checked, issues: &mut Vec<Issue>) {
    let of = |expr: &Expr, optional: bool| {
        let ty = checked.ty(expr);
        if optional { ty.unwrap_optional().0.clone() } else { ty.clone() }
    };
    let mut same = |parts: &mut dyn Iterator<Item = (&Expr, bool)>| {
        let mut expected: Option<Type> = None;
        for (part, optional) in parts {
            let found = of(part, optional);
            match &expected {
                None => expected = Some(found),
                Some(expected) if *expected == found || *expected == Type::Dyn || found == Type::Dyn => {}
                Some(expected) => {
                    let message = format!("expected type '{expected}' but found '{found}'");
                    issues.push(Issue { at: part.at, message });
                    break;
                }
            }
        }
    };
    match &expr.kind {
        Kind::List(items) => same(&mut items.iter().map(|item| (&item.value, item.optional))),
        Kind::Map(entries) => {
            same(&mut entries.iter().map(|entry| (&entry.key, false)));
            same(&mut entries.iter().map(|entry| (&entry.value, entry.optional)));
        }
        Kind::Call { function, .. } if &**function == "format" => return,
        _ => {}
    }
    expr.for_each_child(&mut |child| homogeneous(child, checked, issues));
}

struct Checker<'e> {
    env: &'e Env,
    mapping: Mapping,
    fresh: u32,
    scopes: Vec<(Arc<str>, Type)>,
    issues: Vec<Issue>,
    out: Checked,
}

/// `a.b.c` as one name.
pub(crate) fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select { operand, field, test: false } => Some(format!("{}.{field}", qualified(operand)?)),
        _ => None,
    }
}

impl Checker<'_> {
    fn issue(&mut self, at: u32, message: impl Into<String>) {
        self.issues.push(Issue { at, message: message.into() });
    }

    fn set(&mut self, expr: &Expr, ty: Type) -> Type {
        self.out.types.insert(expr.id, ty.clone());
        ty
    }

    fn fresh(&mut self) -> Type {
        self.fresh += 1;
        Type::Param(Arc::from(format!("_var{}", self.fresh)))
    }

    /// What a name means, innermost first.
    fn look_up(&self, name: &str) -> Option<(Name, Type)> {
        let plain = name.strip_prefix('.');
        if plain.is_none()
            && let Some((name, ty)) = self.scopes.iter().rev().find(|(local, _)| &**local == name)
        {
            return Some((Name::Local(Arc::clone(name)), ty.clone()));
        }
        let name = plain.unwrap_or(name);
        if let Some((name, ty)) = self.env.variables.get_key_value(name) {
            return Some((Name::Variable(Arc::clone(name)), ty.clone()));
        }
        let ty = type_by_name(name).or_else(|| self.env.object(name).map(Type::Object))?;
        Some((Name::Type(ty.clone()), Type::of_type(ty)))
    }

    /// Whether the first part of a qualified name is a variable of a loop.
    fn is_local(&self, name: &str) -> bool {
        let first = name.split('.').next().unwrap_or_default();
        self.scopes.iter().any(|(local, _)| &**local == first)
    }

    fn check(&mut self, expr: &Expr) -> Type {
        let ty = match &expr.kind {
            Kind::Literal(value) => literal_type(value),
            Kind::Ident(name) => match self.look_up(name) {
                Some((found, ty)) => {
                    self.out.names.insert(expr.id, found);
                    ty
                }
                None => {
                    let name = name.strip_prefix('.').unwrap_or(name);
                    self.issue(expr.at, format!("undeclared reference to '{name}' (in container '')"));
                    Type::Error
                }
            },
            Kind::Select { operand, field, test } => self.check_select(expr, operand, field, *test),
            Kind::Call { function, target, args } => self.check_call(expr, function, target.as_deref(), args),
            Kind::List(items) => {
                let mut of = None;
                for item in items {
                    let mut ty = self.check(&item.value);
                    if item.optional {
                        ty = self.unwrapped(&item.value, ty);
                    }
                    of = Some(self.join(of, ty));
                }
                let of = of.unwrap_or_else(|| self.fresh());
                Type::list(of)
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for entry in entries {
                    let key = self.check(&entry.key);
                    keys = Some(self.join(keys, key));
                    let mut value = self.check(&entry.value);
                    if entry.optional {
                        value = self.unwrapped(&entry.value, value);
                    }
                    values = Some(self.join(values, value));
                }
                let keys = keys.unwrap_or_else(|| self.fresh());
                let values = values.unwrap_or_else(|| self.fresh());
                Type::map(keys, values)
            }
            Kind::Struct { name, fields } => {
                let object = self.struct_type(expr.at, name);
                for field in fields {
                    let mut ty = self.check(&field.value);
                    if field.optional {
                        ty = self.unwrapped(&field.value, ty);
                    }
                    let Some(object) = &object else { continue };
                    match object.field(&field.name) {
                        None => self.issue(field.at, format!("undefined field '{}'", field.name)),
                        Some(declared) => {
                            if !self.mapping.assign(&declared, &ty) {
                                let given = self.mapping.substitute(&ty, false);
                                self.issue(
                                    field.at,
                                    format!(
                                        "expected type of field '{}' is '{declared}' but provided type is '{given}'",
                                        field.name
                                    ),
                                );
                            }
                        }
                    }
                }
                object.map_or(Type::Error, Type::Object)
            }
            Kind::Comprehension(comprehension) => self.check_loop(expr, comprehension),
            Kind::OptMap { target, var, body, flat } => {
                let target_type = self.check(target);
                let target_type = self.mapping.substitute(&target_type, false);
                let of = self.unwrap_target(expr, &target_type);
                self.scopes.push((Arc::clone(var), of));
                let body_type = self.check(body);
                self.scopes.pop();
                if *flat {
                    let none = Type::optional(self.fresh());
                    if !self.mapping.assign(&none, &body_type) {
                        self.no_overload(expr.at, "_?_:_", &[Type::Bool, body_type.clone(), none], false);
                    }
                    body_type
                } else {
                    Type::optional(body_type)
                }
            }
        };
        self.set(expr, ty)
    }

    fn unwrap_target(&mut self, expr: &Expr, target: &Type) -> Type {
        match target {
            Type::Optional(of) => Type::clone(of),
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.no_overload(expr.at, "hasValue", std::slice::from_ref(other), true);
                Type::Error
            }
        }
    }

    /// Type of what is in an optional element.
    fn unwrapped(&mut self, expr: &Expr, ty: Type) -> Type {
        match self.mapping.substitute(&ty, false) {
            Type::Optional(of) => Type::clone(&of),
            Type::Dyn => Type::Dyn,
            Type::Error => Type::Error,
            other => {
                let expected = Type::optional(other.clone());
                self.issue(expr.at, format!("expected type '{expected}' but found '{other}'"));
                other
            }
        }
    }

    fn struct_type(&mut self, at: u32, name: &str) -> Option<Arc<dyn ObjectType>> {
        let name = name.strip_prefix('.').unwrap_or(name);
        match self.env.object(name) {
            Some(object) if object.constructible() => Some(object),
            Some(_) => {
                self.issue(at, format!("'{name}' is not a message type"));
                None
            }
            None if self.look_up(name).is_some() => {
                self.issue(at, format!("'{name}' is not a type"));
                None
            }
            None => {
                self.issue(at, format!("undeclared reference to '{name}' (in container '')"));
                None
            }
        }
    }

    /// The common type of elements.
    fn join(&mut self, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else { return current };
        if self.mapping.assign(&previous, &current) {
            return most_general(previous, current);
        }
        Type::Dyn
    }

    fn check_select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> Type {
        if !test
            && let Some(name) = qualified(expr)
            && !self.is_local(&name)
            && let Some((found, ty)) = self.look_up(&name)
        {
            self.out.names.insert(expr.id, found);
            return ty;
        }
        let ty = self.select_field(expr, operand, field, false);
        if test { Type::Bool } else { self.mapping.substitute(&ty, false) }
    }

    fn select_field(&mut self, expr: &Expr, operand: &Expr, field: &str, optional: bool) -> Type {
        let operand_type = self.check(operand);
        let operand_type = self.mapping.substitute(&operand_type, false);
        let (target, wrapped) = operand_type.unwrap_optional();
        let result = match target {
            Type::Map(_, values) => Type::clone(values),
            Type::Object(object) => match object.field(field) {
                Some(ty) => ty,
                None => {
                    self.issue(expr.at, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.mapping.assign(&Type::Dyn, target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.issue(expr.at, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if wrapped || optional { Type::optional(result) } else { result }
    }

    fn check_call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) -> Type {
        if function == "_?._"
            && let [operand, field] = args
        {
            let Kind::Literal(Value::String(name)) = &field.kind else {
                self.issue(field.at, "unsupported optional field selection");
                return Type::Error;
            };
            self.out.types.insert(field.id, Type::String);
            return self.select_field(expr, operand, name, true);
        }
        let mut types: Vec<Type> = args.iter().map(|arg| self.check(arg)).collect();
        self.check_literals(function, target, args);
        let table = functions();
        if let Some(target) = target
            && let Some(prefix) = qualified(target)
            && !self.is_local(&prefix)
        {
            let full = format!("{prefix}.{function}");
            let full = full.strip_prefix('.').unwrap_or(&full);
            if let Some((name, overloads)) = table.get_key_value(full).filter(|(name, _)| self.env.has_function(name)) {
                return self.resolve(expr, name, overloads, &types, false, true);
            }
        }
        if let Some(target) = target {
            types.insert(0, self.check(target));
        }
        let plain = function.strip_prefix('.').unwrap_or(function);
        match table.get_key_value(plain).filter(|(name, _)| self.env.has_function(name)) {
            Some((name, overloads)) => self.resolve(expr, name, overloads, &types, target.is_some(), false),
            None => {
                self.issue(expr.at, format!("undeclared reference to '{plain}' (in container '')"));
                Type::Error
            }
        }
    }

    fn resolve(
        &mut self,
        expr: &Expr,
        name: &'static str,
        overloads: &'static [Overload],
        types: &[Type],
        member: bool,
        namespaced: bool,
    ) -> Type {
        let mut result: Option<Type> = None;
        let mut fitting = Vec::new();
        for overload in overloads {
            if overload.member != member {
                continue;
            }
            let mut renamed = Mapping::default();
            let mut names = HashMap::new();
            let args: Vec<Type> = overload.args.iter().map(|ty| self.instance(ty, &mut names)).collect();
            let of = self.instance(&overload.result, &mut names);
            std::mem::swap(&mut renamed, &mut self.mapping);
            let fits = renamed.assign_all(types, &args);
            self.mapping = renamed;
            if !fits {
                continue;
            }
            fitting.push(overload);
            let ty = self.mapping.substitute(&of, false);
            result = Some(match result {
                None => ty,
                Some(Type::Dyn) => Type::Dyn,
                Some(known) if known == ty => known,
                Some(_) => Type::Dyn,
            });
        }
        let Some(result) = result else {
            let shown: Vec<Type> = types.iter().map(|ty| self.mapping.substitute(ty, true)).collect();
            self.no_overload(expr.at, name, &shown, member);
            return Type::Error;
        };
        self.out.calls.insert(expr.id, Resolved { function: name, namespaced, overloads: fitting });
        result
    }

    /// A declared type with new names for its variables.
    fn instance(&mut self, ty: &Type, names: &mut HashMap<Arc<str>, Type>) -> Type {
        match ty {
            Type::Param(name) => {
                if let Some(known) = names.get(name) {
                    return known.clone();
                }
                let fresh = self.fresh();
                names.insert(Arc::clone(name), fresh.clone());
                fresh
            }
            Type::List(of) => Type::list(self.instance(of, names)),
            Type::Optional(of) => Type::optional(self.instance(of, names)),
            Type::Type(of) => Type::of_type(self.instance(of, names)),
            Type::Map(keys, values) => {
                let keys = self.instance(keys, names);
                Type::map(keys, self.instance(values, names))
            }
            other => other.clone(),
        }
    }

    fn no_overload(&mut self, at: u32, name: &str, types: &[Type], member: bool) {
        let message = format!("found no matching overload for '{name}' applied to '{}'", signature(types, member));
        self.issue(at, message);
    }

    /// Constants that functions would refuse when they run.
    fn check_literals(&mut self, function: &str, target: Option<&Expr>, args: &[Expr]) {
        let text = |expr: &Expr| match &expr.kind {
            Kind::Literal(Value::String(text)) => Some(text.to_string()),
            _ => None,
        };
        let last = args.last().and_then(|arg| text(arg).map(|text| (arg.at, text)));
        let Some((at, text)) = last else { return };
        let alone = target.is_none() && args.len() == 1;
        match function {
            "timestamp" if alone && time::parse_timestamp(&text).is_none() => {
                self.issue(at, "invalid timestamp argument");
            }
            "duration" if alone && time::parse_duration(&text).is_none() => {
                self.issue(at, "invalid duration argument");
            }
            "matches" if args.len() == if target.is_some() { 1 } else { 2 } && regex::compile(&text).is_err() => {
                self.issue(at, "invalid matches argument");
            }
            _ => {}
        }
    }

    fn check_loop(&mut self, expr: &Expr, c: &Comprehension) -> Type {
        let range = self.check(&c.range);
        let range = self.mapping.substitute(&range, false);
        let (key, value) = match &range {
            Type::List(of) => (Type::Int, Type::clone(of)),
            Type::Map(keys, values) => (Type::clone(keys), Type::clone(values)),
            Type::Dyn | Type::Error => (Type::Dyn, Type::Dyn),
            Type::Param(_) => {
                self.mapping.assign(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issue(c.range.at, message);
                (Type::Error, Type::Error)
            }
        };
        // With one variable, lists are looped over by element, maps by key.
        let single = if matches!(range, Type::Map(..)) { key.clone() } else { value.clone() };
        let depth = self.scopes.len();
        match &c.var2 {
            Some(second) => {
                self.scopes.push((Arc::clone(&c.var), key.clone()));
                self.scopes.push((Arc::clone(second), value));
            }
            None => self.scopes.push((Arc::clone(&c.var), single.clone())),
        }
        let made = |body: &Type| match c.kind {
            Loop::Filter => Type::list(single.clone()),
            Loop::List => Type::list(body.clone()),
            Loop::Map => Type::map(key.clone(), body.clone()),
            Loop::MapEntry => body.clone(),
            Loop::ExistsOne => Type::Int,
            Loop::All | Loop::Exists => Type::Bool,
        };
        let filter = c.filter.as_ref().map(|filter| self.check(filter));
        let body = self.check(&c.body);
        self.scopes.truncate(depth);
        let result = made(&body);
        let condition = match c.kind {
            Loop::Filter | Loop::ExistsOne => Some(&body),
            _ => filter.as_ref(),
        };
        if let Some(condition) = condition
            && !self.mapping.assign(condition, &Type::Bool)
        {
            let shown = self.mapping.substitute(condition, true);
            self.no_overload(expr.at, "_?_:_", &[shown, result.clone(), result.clone()], false);
        }
        match c.kind {
            Loop::All | Loop::Exists => {
                if !self.mapping.assign(&body, &Type::Bool) {
                    let shown = self.mapping.substitute(&body, true);
                    let operator = if c.kind == Loop::All { "_&&_" } else { "_||_" };
                    self.no_overload(expr.at, operator, &[Type::Bool, shown], false);
                }
                Type::Bool
            }
            Loop::ExistsOne => Type::Bool,
            Loop::MapEntry => {
                let entries = Type::map(self.fresh(), self.fresh());
                if !self.mapping.assign(&body, &entries) {
                    let shown = self.mapping.substitute(&body, true);
                    let accumulated = Type::map(Type::Dyn, Type::Dyn);
                    self.no_overload(expr.at, "cel.@mapInsert", &[accumulated, shown], false);
                }
                body
            }
            _ => result,
        }
    }
}

fn literal_type(value: &Value<'_>) -> Type {
    value.type_of()
}
