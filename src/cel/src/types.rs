//! Types of expressions, and how one fits another.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The fields of an object type.
pub trait ObjectType: Send + Sync {
    /// Name of the type; two types of one name are the same.
    fn name(&self) -> &str;
    /// Type of a field, by its (escaped) name.
    fn field(&self, name: &str) -> Option<Type>;
    /// Whether expressions may make values of the type: `Object{...}`.
    fn constructible(&self) -> bool {
        false
    }
}

/// The type of an expression.
#[derive(Clone)]
pub enum Type {
    /// Known only at run time.
    Dyn,
    /// Follows from an error that was reported already.
    Error,
    /// `null`.
    Null,
    /// True or false.
    Bool,
    /// 64 bits, signed.
    Int,
    /// 64 bits, unsigned.
    Uint,
    /// 64 bits, IEEE 754.
    Double,
    /// Unicode text.
    String,
    /// Octets.
    Bytes,
    /// A point in time.
    Timestamp,
    /// A span of time.
    Duration,
    /// A list.
    List(Arc<Type>),
    /// A map with scalar keys.
    Map(Arc<Type>, Arc<Type>),
    /// An object with known fields.
    Object(Arc<dyn ObjectType>),
    /// A type of a library, as in `kubernetes.URL`.
    Opaque(&'static str),
    /// A value that may be absent.
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Arc<Type>),
    /// A variable of a declaration, or one that is not known yet.
    Param(Arc<str>),
}

impl Type {
    /// `list(items)`.
    #[must_use]
    pub fn list(items: Type) -> Self {
        Self::List(Arc::new(items))
    }

    /// `map(keys, values)`.
    #[must_use]
    pub fn map(keys: Type, values: Type) -> Self {
        Self::Map(Arc::new(keys), Arc::new(values))
    }

    /// `optional_type(of)`.
    #[must_use]
    pub fn optional(of: Type) -> Self {
        Self::Optional(Arc::new(of))
    }

    pub(crate) fn of_type(of: Type) -> Self {
        Self::Type(Arc::new(of))
    }

    /// Dynamic, or an error that must not lead to others.
    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// What is in an optional.
    pub(crate) fn unwrap_optional(&self) -> (&Type, bool) {
        match self {
            Self::Optional(inner) => (inner, true),
            other => (other, false),
        }
    }

    /// Name as `type(x)` shows it at run time.
    #[must_use]
    pub fn runtime_name(&self) -> &str {
        match self {
            Self::Dyn => "dyn",
            Self::Error => "error",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Duration => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(..) => "map",
            Self::Object(object) => object.name(),
            Self::Opaque(name) => name,
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Param(name) => name,
        }
    }

    fn same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b))
            | (Self::Optional(a), Self::Optional(b))
            | (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Map(ak, av), Self::Map(bk, bv)) => ak == bk && av == bv,
            (Self::Object(a), Self::Object(b)) => a.name() == b.name(),
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Param(a), Self::Param(b)) => a == b,
            _ => self.same_kind(other),
        }
    }
}

impl Eq for Type {}

impl fmt::Display for Type {
    /// As messages of the type checker show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(items) => write!(f, "list({items})"),
            Self::Map(keys, values) => write!(f, "map({keys}, {values})"),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            Self::Type(of) => write!(f, "type({of})"),
            other => f.write_str(other.runtime_name()),
        }
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What type variables stand for.
#[derive(Default, Clone)]
pub(crate) struct Mapping {
    bound: HashMap<Arc<str>, Type>,
}

impl Mapping {
    /// Whether `from` can be used as `to`; binds variables when it can and
    /// leaves them alone when it cannot.
    pub fn assign(&mut self, from: &Type, to: &Type) -> bool {
        let mut copy = self.clone();
        let fits = copy.fits(from, to);
        if fits {
            *self = copy;
        }
        fits
    }

    /// As [`Mapping::assign`] for all of a list of arguments.
    pub fn assign_all(&mut self, from: &[Type], to: &[Type]) -> bool {
        if from.len() != to.len() {
            return false;
        }
        let mut copy = self.clone();
        let fits = from.iter().zip(to).all(|(from, to)| copy.fits(from, to));
        if fits {
            *self = copy;
        }
        fits
    }

    fn fits(&mut self, from: &Type, to: &Type) -> bool {
        if let Type::Param(name) = to {
            let (valid, bound) = self.substitutes(from, name);
            if valid {
                return true;
            }
            if bound {
                return false;
            }
        }
        if let Type::Param(name) = from {
            return self.substitutes(to, name).0;
        }
        if from.is_dyn_or_error() || to.is_dyn_or_error() {
            return true;
        }
        match (from, to) {
            (
                Type::Null,
                Type::Null | Type::Object(_) | Type::Opaque(_) | Type::Timestamp | Type::Duration | Type::Optional(_),
            ) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.fits(a, b),
            (Type::Map(ak, av), Type::Map(bk, bv)) => self.fits(ak, bk) && self.fits(av, bv),
            (Type::Type(_), Type::Type(_)) => true,
            (a, b) => a == b,
        }
    }

    /// Whether a variable can stand for a type, and whether it stood for one before.
    fn substitutes(&mut self, ty: &Type, name: &Arc<str>) -> (bool, bool) {
        if let Some(known) = self.bound.get(name).cloned() {
            if *ty == known {
                return (true, true);
            }
            if self.fits(ty, &known) {
                let general = if less_specific(ty, &known) { ty.clone() } else { known };
                if !matches!(&general, Type::Param(other) if other == name) {
                    self.bound.insert(Arc::clone(name), general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.absent_in(name, ty) {
            self.bound.insert(Arc::clone(name), ty.clone());
            return (true, false);
        }
        (false, false)
    }

    fn absent_in(&self, name: &Arc<str>, ty: &Type) -> bool {
        match ty {
            Type::Param(other) if other == name => false,
            Type::Param(other) => self.bound.get(other).is_none_or(|bound| self.absent_in(name, bound)),
            Type::List(inner) | Type::Optional(inner) => self.absent_in(name, inner),
            Type::Map(keys, values) => self.absent_in(name, keys) && self.absent_in(name, values),
            _ => true,
        }
    }

    /// The type with its variables replaced; unbound ones become `dyn` when
    /// the result is final.
    pub fn substitute(&self, ty: &Type, last: bool) -> Type {
        match ty {
            Type::Param(name) => match self.bound.get(name) {
                Some(bound) => self.substitute(bound, last),
                None if last => Type::Dyn,
                None => ty.clone(),
            },
            Type::List(items) => Type::list(self.substitute(items, last)),
            Type::Optional(of) => Type::optional(self.substitute(of, last)),
            Type::Type(of) => Type::of_type(self.substitute(of, last)),
            Type::Map(keys, values) => Type::map(self.substitute(keys, last), self.substitute(values, last)),
            other => other.clone(),
        }
    }
}

/// Whether the first of two types that fit is equal to, or less specific than,
/// the second.
fn less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => less_specific(a, b),
        (Type::Map(ak, av), Type::Map(bk, bv)) => less_specific(ak, bk) && less_specific(av, bv),
        (Type::Type(_), Type::Type(_)) => true,
        _ => a == b,
    }
}

/// The more general of two types that fit.
pub(crate) fn most_general(a: Type, b: Type) -> Type {
    if less_specific(&a, &b) { a } else { b }
}

/// The types of a call in parentheses, as messages show them.
pub(crate) fn signature(args: &[Type], member: bool) -> String {
    let (receiver, rest) = match args.split_first() {
        Some((first, rest)) if member => (format!("{first}."), rest),
        _ => (String::new(), args),
    };
    let list = rest.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("{receiver}({list})")
}
