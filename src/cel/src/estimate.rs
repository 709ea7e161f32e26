//! What an expression can cost at least and at most, before it runs: rules of
//! custom resources that could cost too much are refused.
//!
//! Source: `cel-go/checker/cost.go`, `k8s.io/apiserver/pkg/cel/library/cost.go`,
//! `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/compilation.go`
//! (sizes). Loops are counted as the general loops they stand for.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Comprehension, Expr, Kind, Loop};
use crate::check::{Checked, Name, Resolved};
use crate::cost::{CHECK, LIST, MAP, PER_CHAR, PER_REGEX_CHAR, STRUCT};
use crate::declarations::Overload;
use crate::library::format::MAX_REGEX_SIZE;
use crate::schema::{DeclType, SizeAt};
use crate::types::Type;
use crate::value::{Value, char_count};

/// Least and most cost, or least and most size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// Least.
    pub min: u64,
    /// Most; `u64::MAX` when nothing bounds it.
    pub max: u64,
}

impl Estimate {
    const UNKNOWN: Self = Self { min: 0, max: u64::MAX };
    const ONE: Self = Self::fixed(1);

    const fn fixed(value: u64) -> Self {
        Self { min: value, max: value }
    }

    fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn scaled(self, factor: f64) -> Self {
        // A float above the range becomes the largest number.
        let scale = |value: u64| (value as f64 * factor).ceil() as u64;
        Self { min: scale(self.min), max: scale(self.max) }
    }

    fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// How large values from outside can be.
pub trait SizeHints {
    /// Most characters, elements or entries of what is under a path: the name
    /// of a variable, then names of fields, `@items`, `@keys`, `@values`.
    /// `None` when nothing is known.
    fn max_size(&self, path: &[String]) -> Option<u64>;
}

impl SizeHints for () {
    fn max_size(&self, _: &[String]) -> Option<u64> {
        None
    }
}

/// Every variable is of this declaration, as `self` and `oldSelf` are.
impl SizeHints for Arc<DeclType> {
    fn max_size(&self, path: &[String]) -> Option<u64> {
        match self.at(path.get(1..)?)? {
            SizeAt::Decl(decl) => Some(decl.max_elements.unwrap_or(0)),
            SizeAt::Key => Some(0),
        }
    }
}

/// Sizes of the keys and values in a list or map.
#[derive(Clone, Copy)]
struct Entries {
    list: bool,
    key: Estimate,
    value: Estimate,
}

impl Entries {
    fn union(self, other: Self) -> Self {
        Self { list: self.list, key: self.key.union(other.key), value: self.value.union(other.value) }
    }
}

#[derive(Clone, Default)]
struct Local {
    path: Vec<String>,
    size: Option<Estimate>,
    entries: Option<Entries>,
}

/// Estimates a checked expression.
pub(crate) fn estimate(expr: &Expr, checked: &Checked, hints: &dyn SizeHints) -> Estimate {
    let mut coster = Coster {
        checked,
        hints,
        locals: Vec::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        paths: HashMap::new(),
    };
    coster.cost(expr)
}

struct Coster<'c> {
    checked: &'c Checked,
    hints: &'c dyn SizeHints,
    locals: Vec<(Arc<str>, Local)>,
    sizes: HashMap<u32, Estimate>,
    entries: HashMap<u32, Entries>,
    paths: HashMap<u32, Vec<String>>,
}

impl Coster<'_> {
    fn local(&self, expr: &Expr) -> Option<&Local> {
        match self.checked.name(expr) {
            Some(Name::Local(name)) => {
                self.locals.iter().rev().find(|(known, _)| known == name).map(|(_, local)| local)
            }
            _ => None,
        }
    }

    fn path(&self, expr: &Expr) -> Vec<String> {
        if let Some(local) = self.local(expr) {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn size(&mut self, expr: &Expr) -> Option<Estimate> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        match &expr.kind {
            Kind::Literal(value) => {
                return Some(Estimate::fixed(match value {
                    Value::String(text) => char_count(text),
                    Value::Bytes(bytes) => bytes.len() as u64,
                    _ => 1,
                }));
            }
            Kind::List(items) => return Some(Estimate::fixed(items.len() as u64)),
            Kind::Map(entries) => return Some(Estimate::fixed(entries.len() as u64)),
            _ => {}
        }
        let path = self.path(expr);
        if let Some(size) = self.hint(&path) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.checked.ty(expr)) {
            return Some(Estimate::ONE);
        }
        self.local(expr).and_then(|local| local.size)
    }

    fn hint(&self, path: &[String]) -> Option<Estimate> {
        if path.is_empty() {
            return None;
        }
        self.hints.max_size(path).map(|max| Estimate { min: 0, max })
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Estimate {
        self.size(expr).unwrap_or(Estimate::UNKNOWN)
    }

    fn entries(&self, expr: &Expr) -> Option<Entries> {
        self.entries.get(&expr.id).copied().or_else(|| self.local(expr).and_then(|local| local.entries))
    }

    fn cost(&mut self, expr: &Expr) -> Estimate {
        match &expr.kind {
            Kind::Literal(_) => Estimate::default(),
            Kind::Ident(name) => {
                let path = match self.local(expr) {
                    Some(local) => local.path.clone(),
                    None => vec![name.trim_start_matches('.').to_owned()],
                };
                self.paths.insert(expr.id, path);
                Estimate::ONE
            }
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call { target, args, .. } => self.call(expr, target.as_deref(), args),
            Kind::List(items) => {
                let mut sum = Estimate::fixed(LIST);
                let mut value = empty(items.is_empty());
                for item in items {
                    sum = sum.plus(self.cost(&item.value));
                    value = value.union(self.size_or_unknown(&item.value));
                }
                self.entries.insert(expr.id, Entries { list: true, key: Estimate::ONE, value });
                sum
            }
            Kind::Map(entries) => {
                let mut sum = Estimate::fixed(MAP);
                let (mut key, mut value) = (empty(entries.is_empty()), empty(entries.is_empty()));
                for entry in entries {
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    key = key.union(self.size_or_unknown(&entry.key));
                    value = value.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, Entries { list: false, key, value });
                sum
            }
            Kind::Struct { fields, .. } => {
                fields.iter().fold(Estimate::fixed(STRUCT), |sum, field| sum.plus(self.cost(&field.value)))
            }
            Kind::Comprehension(comprehension) => self.comprehension(expr, comprehension),
            Kind::OptMap { target, var, body, flat } => self.opt_map(target, var, body, *flat),
        }
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> Estimate {
        if self.checked.name(expr).is_some() {
            // A variable with dots in its name.
            if let Some(name) = crate::check::qualified(expr) {
                self.paths.insert(expr.id, vec![name]);
            }
            return Estimate::ONE;
        }
        let mut sum = self.cost(operand);
        if test {
            return sum;
        }
        if matches!(self.checked.ty(operand), Type::Map(..) | Type::Object(_) | Type::Param(_)) {
            sum = sum.plus(Estimate::ONE);
        }
        let mut path = self.path(operand);
        if !path.is_empty() {
            path.push(field.to_owned());
            self.paths.insert(expr.id, path);
        }
        sum
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, args: &[Expr]) -> Estimate {
        let function = match &expr.kind {
            Kind::Call { function, .. } => &**function,
            _ => return Estimate::default(),
        };
        if function == "dyn"
            && let [arg] = args
        {
            let sum = self.cost(arg).plus(Estimate::ONE);
            if let Some(size) = self.size(arg) {
                self.sizes.insert(expr.id, size);
            }
            if let Some(entries) = self.entries(arg) {
                self.entries.insert(expr.id, entries);
            }
            return sum;
        }
        let costs: Vec<Estimate> = args.iter().map(|arg| self.cost(arg)).collect();
        if function == "_?._" {
            // One overload, of which nothing special is known.
            return costs.iter().fold(Estimate::ONE, |sum, cost| sum.plus(*cost));
        }
        let checked = self.checked;
        let Some(resolved) = checked.call(expr) else { return Estimate::default() };
        let target = target.filter(|_| !resolved.namespaced);
        let base = target.map_or(Estimate::default(), |target| self.cost(target));
        let mut cost = Estimate { min: u64::MAX, max: 0 };
        let mut size: Option<Estimate> = None;
        for overload in &resolved.overloads {
            let call = Call { expr, resolved, overload, target, args, costs: &costs };
            let (of, result) = self.overload(&call);
            cost = cost.union(of);
            size = match (size, result) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            if resolved.function == "_[_]"
                && let Some(operand) = args.first()
            {
                size = self.entries(operand).map(|entries| entries.value);
                let mut path = self.path(operand);
                if !path.is_empty() {
                    let list = matches!(overload.args.first(), Some(Type::List(_)));
                    path.push(if list { "@items" } else { "@values" }.to_owned());
                    self.paths.insert(expr.id, path);
                }
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
        base.plus(cost)
    }

    /// Cost of a call with one of its signatures, and size of the result.
    fn overload(&mut self, call: &Call<'_>) -> (Estimate, Option<Estimate>) {
        let args = call.costs.iter().fold(Estimate::default(), |sum, cost| sum.plus(*cost));
        if let Some((cost, size)) = self.library(call) {
            return (cost.plus(args), size);
        }
        let text = matches!(call.overload.args.first(), Some(Type::String | Type::Bytes));
        match (call.resolved.function, call.args) {
            ("format", [values]) => {
                let Some(target) = call.target else { return (args.plus(Estimate::ONE), None) };
                let size = self.size_or_unknown(target);
                let all = size.plus(self.size_or_unknown(values));
                (size.scaled(PER_CHAR).plus(args), Some(all))
            }
            ("bytes", [arg]) if call.overload.args[0] == Type::String => {
                let size = self.size_or_unknown(arg);
                let most = Estimate { min: size.min, max: size.max.saturating_mul(4) };
                (size.scaled(PER_CHAR).plus(args), Some(most))
            }
            ("string", [arg]) if call.overload.args[0] == Type::Bytes => {
                let size = self.size_or_unknown(arg);
                (size.scaled(PER_CHAR).plus(args), Some(Estimate { min: size.min / 4, max: size.max }))
            }
            ("strings.quote", [arg]) => {
                let size = self.size_or_unknown(arg);
                let most = size.max.saturating_mul(2).saturating_add(2);
                (size.scaled(PER_CHAR).plus(args), Some(Estimate { min: size.min + 2, max: most }))
            }
            ("startsWith" | "endsWith", [arg]) => (self.size_or_unknown(arg).scaled(PER_CHAR).plus(args), None),
            ("@in", [_, list]) if matches!(call.overload.args[1], Type::List(_)) => {
                (self.size_or_unknown(list).plus(args), None)
            }
            ("matches", [pattern]) => match call.target {
                Some(target) => {
                    let text = self.size_or_unknown(target).plus(Estimate::ONE).scaled(PER_CHAR);
                    let pattern = self.size_or_unknown(pattern).scaled(PER_REGEX_CHAR);
                    (text.times(pattern).plus(args), None)
                }
                None => (args.plus(Estimate::ONE), None),
            },
            ("contains", [part]) => {
                let Some(target) = call.target else { return (args.plus(Estimate::ONE), None) };
                let text = self.size_or_unknown(target).scaled(PER_CHAR);
                (text.times(self.size_or_unknown(part).scaled(PER_CHAR)).plus(args), None)
            }
            ("_&&_" | "_||_", [_, _]) => {
                let (left, right) = (call.costs[0], call.costs[1]);
                (Estimate { min: left.min, max: left.plus(right).max }, None)
            }
            ("_?_:_", [_, yes, no]) => {
                let size = self.size_or_unknown(yes).union(self.size_or_unknown(no));
                if let (Some(a), Some(b)) = (self.entries(yes), self.entries(no)) {
                    self.entries.insert(call.expr.id, a.union(b));
                }
                (call.costs[0].plus(call.costs[1].union(call.costs[2])), Some(size))
            }
            ("_+_", [a, b]) if text || matches!(call.overload.args[0], Type::List(_)) => {
                let size = self.size_or_unknown(a).plus(self.size_or_unknown(b));
                if let (Some(a), Some(b)) = (self.entries(a), self.entries(b)) {
                    self.entries.insert(call.expr.id, a.union(b));
                }
                let cost = if text { size.scaled(PER_CHAR) } else { Estimate::ONE };
                (cost.plus(args), Some(size))
            }
            ("_==_" | "_!=_", [a, b]) => (self.compared(a, b).plus(args), None),
            ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) if text => (self.compared(a, b).plus(args), None),
            _ => (args.plus(Estimate::ONE), None),
        }
    }

    fn compared(&mut self, a: &Expr, b: &Expr) -> Estimate {
        let max = self.size_or_unknown(a).max.min(self.size_or_unknown(b).max);
        Estimate { min: u64::from(max > 0), max }.scaled(PER_CHAR)
    }

    /// Functions that Kubernetes, or the library of sets, prices itself.
    fn library(&mut self, call: &Call<'_>) -> Option<(Estimate, Option<Estimate>)> {
        let per_char = |size: Estimate| size.scaled(PER_CHAR);
        let target = call.target;
        let first = call.args.first();
        Some(match call.resolved.function {
            "check" => (Estimate::fixed(CHECK), None),
            "serviceAccount"
            | "path"
            | "group"
            | "resource"
            | "subresource"
            | "namespace"
            | "name"
            | "allowed"
            | "reason"
            | "error"
            | "errored"
            | "masked"
            | "prefixLength"
            | "family"
            | "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "isGlobalUnicast"
            | "format.named"
            | "sign"
            | "asInteger"
            | "isInteger"
            | "asApproximateFloat"
            | "isGreaterThan"
            | "isLessThan"
            | "compareTo"
            | "add"
            | "sub"
            | "major"
            | "minor"
            | "patch"
            | "getScheme"
            | "getHostname"
            | "getHost"
            | "getPort"
            | "getEscapedPath"
            | "getQuery" => (Estimate::ONE, None),
            "fieldSelector" | "labelSelector" => {
                let length = self.size_or_unknown(first?);
                let requirements = length.scaled(0.5).scaled((LIST + STRUCT) as f64);
                (Estimate::fixed(LIST).plus(per_char(length)).plus(requirements), None)
            }
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
                let target = target?;
                let size = self.size_or_unknown(target);
                match self.checked.ty(target).clone() {
                    Type::List(of) => {
                        let mut each = Estimate::ONE;
                        if matches!(&*of, Type::String | Type::Bytes) {
                            each = each.plus(per_char(self.element_size(target)));
                        }
                        (size.times(each), None)
                    }
                    _ => (per_char(size), None),
                }
            }
            "url" | "jsonpatch.escapeKey" => {
                let size = self.size_or_unknown(first?);
                (per_char(size), Some(size))
            }
            "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                let size = self.size_or_unknown(target?);
                (per_char(size), Some(size))
            }
            "replace" => {
                let size = self.size_or_unknown(target?);
                let old = self.size_or_unknown(first?);
                let new = self.size_or_unknown(call.args.get(1)?);
                (size.scaled(2.0 * PER_CHAR), Some(replaced(size, old, new)))
            }
            "split" => {
                let size = self.size_or_unknown(target?);
                let max = match call.args.get(1).map(|limit| &limit.kind) {
                    Some(Kind::Literal(Value::Int(limit))) => *limit as u64,
                    _ => size.max,
                };
                (size.scaled(2.0 * PER_CHAR), Some(Estimate { min: 0, max }))
            }
            "join" => {
                let target = target?;
                let count = self.size_or_unknown(target);
                let mut size = count.times(self.element_size(target));
                if let Some(separator) = first {
                    let gaps = Estimate { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
                    size = size.plus(self.size_or_unknown(separator).times(gaps));
                }
                (per_char(size), Some(size))
            }
            "find" | "findAll" => {
                let size = self.size_or_unknown(target?);
                let pattern = self.size_or_unknown(first?).scaled(PER_REGEX_CHAR);
                (per_char(size.plus(Estimate::ONE)).times(pattern), Some(Estimate { min: 0, max: size.max }))
            }
            // Functions without receiver are not priced here by upstream.
            "ip" if target.is_some() => (Estimate::ONE, None),
            "containsIP" | "containsCIDR" => {
                target?;
                let address = Estimate { min: 4, max: 16 };
                let mut cost = per_char(address.plus(address));
                if call.resolved.function == "containsCIDR" {
                    cost = cost.plus(per_char(address)).plus(Estimate::ONE);
                }
                if call.overload.args.get(1) == Some(&Type::String) {
                    cost = cost.plus(per_char(self.size_or_unknown(first?)));
                }
                (cost, None)
            }
            "validate" => {
                target?;
                let size = self.size_or_unknown(first?);
                (per_char(size).scaled(MAX_REGEX_SIZE as f64 * PER_REGEX_CHAR), None)
            }
            "sets.contains" | "sets.intersects" | "sets.equivalent" => {
                let [a, b] = call.args else { return None };
                let factor = if call.resolved.function == "sets.equivalent" { 2.0 } else { 1.0 };
                let product = self.size_or_unknown(a).times(self.size_or_unknown(b));
                (product.scaled(factor).plus(Estimate::ONE), None)
            }
            "_==_" => {
                let [a, b] = call.args else { return None };
                match (self.checked.ty(a), self.checked.ty(b)) {
                    (Type::Opaque(x), Type::Opaque(y)) if x == y => {
                        let long = matches!(*x, "kubernetes.NamedFormat");
                        let max = if long { 64 } else { 1 };
                        let cost = Estimate { min: 1, max };
                        (if long { per_char(cost) } else { cost }, None)
                    }
                    _ => return None,
                }
            }
            _ => return None,
        })
    }

    /// Size of the elements of a list, by its path.
    fn element_size(&self, list: &Expr) -> Estimate {
        let mut path = self.path(list);
        if path.is_empty() {
            return Estimate::UNKNOWN;
        }
        path.push("@items".to_owned());
        self.hint(&path).unwrap_or(Estimate::UNKNOWN)
    }

    fn opt_map(&mut self, target: &Expr, var: &Arc<str>, body: &Expr, flat: bool) -> Estimate {
        let target_cost = self.cost(target);
        let local = Local { path: Vec::new(), size: self.size(target), entries: None };
        self.locals.push((Arc::clone(var), local));
        let bound = Estimate::fixed(LIST).plus(target_cost.plus(Estimate::ONE)).plus(self.cost(body));
        self.locals.pop();
        let made = if flat { bound } else { bound.plus(Estimate::ONE) };
        target_cost.plus(Estimate::ONE).plus(made.union(Estimate::ONE))
    }

    fn comprehension(&mut self, expr: &Expr, c: &Comprehension) -> Estimate {
        let range = self.cost(&c.range);
        let entries = self.entries(&c.range);
        let list = entries.map_or(matches!(self.checked.ty(&c.range), Type::List(_)), |entries| entries.list);
        let path = self.path(&c.range);
        let local = |suffix: &str, size: Option<Estimate>| {
            let mut path = path.clone();
            if !path.is_empty() {
                path.push(suffix.to_owned());
            }
            Local { path, size, entries: None }
        };
        let (key, value) = (entries.map(|e| e.key), entries.map(|e| e.value));
        let depth = self.locals.len();
        match &c.var2 {
            Some(var2) => {
                self.locals.push((Arc::clone(&c.var), local(if list { "@indices" } else { "@keys" }, key)));
                self.locals.push((Arc::clone(var2), local(if list { "@items" } else { "@values" }, value)));
            }
            None if list => self.locals.push((Arc::clone(&c.var), local("@items", value))),
            None => self.locals.push((Arc::clone(&c.var), local("@keys", key))),
        }
        let filter = c.filter.as_ref().map(|filter| self.cost(filter));
        let body = self.cost(&c.body);
        let body_size = self.size_or_unknown(&c.body);
        let element = self.locals[depth].1.size.or_else(|| self.hint(&self.locals[depth].1.path));
        self.locals.truncate(depth);
        let one = Estimate::ONE;
        let append = one.plus(one).plus(Estimate::fixed(LIST));
        let put = one.plus(one).plus(one);
        // The accumulator's start, one turn, and the result.
        let (start, turn, result) = match c.kind {
            Loop::All => (0, Estimate { min: 1, max: body.max.saturating_add(1) }.plus(Estimate::fixed(2)), 1),
            Loop::Exists => (0, Estimate { min: 1, max: body.max.saturating_add(1) }.plus(Estimate::fixed(3)), 1),
            Loop::ExistsOne => (0, body.plus(Estimate { min: 1, max: 2 }), 2),
            Loop::Filter => (LIST, body.plus(append.plus(one).union(one)), 1),
            Loop::List => (LIST, filtered(filter, append.plus(body)), 1),
            Loop::Map => (MAP, filtered(filter, put.plus(body)), 1),
            Loop::MapEntry => (MAP, filtered(filter, one.plus(one).plus(body)), 1),
        };
        let count = self.size_or_unknown(&c.range);
        match c.kind {
            Loop::All | Loop::Exists | Loop::ExistsOne => {
                self.sizes.insert(expr.id, one);
            }
            Loop::Filter | Loop::List => {
                self.sizes.insert(expr.id, count);
                let size = if c.kind == Loop::Filter { element.unwrap_or(Estimate::UNKNOWN) } else { body_size };
                let value = Estimate { min: 0, max: size.max };
                self.entries.insert(expr.id, Entries { list: true, key: one, value });
            }
            Loop::Map | Loop::MapEntry => {
                self.sizes.insert(expr.id, count);
            }
        }
        range.plus(Estimate::fixed(start + result)).plus(count.times(turn))
    }
}

struct Call<'c> {
    expr: &'c Expr,
    resolved: &'c Resolved,
    overload: &'c Overload,
    target: Option<&'c Expr>,
    args: &'c [Expr],
    costs: &'c [Estimate],
}

fn filtered(filter: Option<Estimate>, step: Estimate) -> Estimate {
    match filter {
        Some(filter) => filter.plus(step.union(Estimate::ONE)),
        None => step,
    }
}

/// What a union of sizes begins with.
fn empty(none: bool) -> Estimate {
    Estimate { min: if none { 0 } else { u64::MAX }, max: 0 }
}

/// Size of a text after replacements.
fn replaced(size: Estimate, old: Estimate, new: Estimate) -> Estimate {
    let parts = |length: u64, part: u64| (length as f64 / part as f64).ceil() as u64;
    let (mut count, mut kept) = (Estimate::default(), Estimate::default());
    if old.min == 0 {
        count.max = size.max.saturating_add(1);
        kept.max = size.max;
    } else if new.max <= old.min {
        kept.max = size.max;
    } else {
        count.max = parts(size.max, old.min);
    }
    if old.max == 0 {
        count.min = size.min.saturating_add(1);
        kept.min = size.min;
    } else if old.max <= new.min {
        kept.min = size.min;
    } else {
        count.min = parts(size.min, old.max);
    }
    count.times(new).plus(kept)
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(of) => is_scalar(of),
        _ => false,
    }
}
