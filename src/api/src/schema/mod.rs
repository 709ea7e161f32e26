//! The shapes of all built-in kinds: which fields exist, of which type, which
//! lists merge by which keys. One table drives strict decoding, strategic
//! merge patches, server-side apply and the OpenAPI documents, so that they
//! cannot disagree.
//!
//! The table is `data/schema.txt`, extracted by `tools/schema.py`; it is
//! loaded once, on first use. Shapes of custom resources are [`TypeDef`]s too,
//! made at run time ([`StructRef::Own`]).

mod base64;
mod check;
mod decode;
mod load;
mod time;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

pub use check::{Findings, check, normalize, strict_error, undecodable};
pub(crate) use decode::MAX_DUPLICATES;
pub use decode::{Decoded, Limits, decode_json};
pub(crate) use time::second_time;

/// Whether and how a list is merged by server-side apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListKind {
    /// Not said; treated as atomic.
    Unspecified,
    /// Replaced as a whole.
    Atomic,
    /// Unique scalars.
    Set,
    /// Objects, unique by these key fields.
    Map(Vec<String>),
}

/// The type of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// Text.
    String,
    /// A whole number without declared width (64 bits).
    Integer,
    /// 32 bits, signed.
    Int32,
    /// 64 bits, signed.
    Int64,
    /// True or false.
    Boolean,
    /// A floating-point number.
    Number,
    /// An amount with a suffix, as in `100m`; text or a number.
    Quantity,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// Base64 text.
    Bytes,
    /// A 32-bit whole number or text.
    IntOrString,
    /// Any JSON value.
    Any,
    /// A JSON object of any content, always replaced as a whole.
    Free,
    /// An object with known fields.
    Struct {
        /// Its shape.
        def: StructRef,
        /// Whether server-side apply replaces it as a whole.
        atomic: bool,
    },
    /// A list.
    List {
        /// Type of the elements.
        items: Box<Type>,
        /// How it merges.
        kind: ListKind,
    },
    /// An object with free keys.
    Map {
        /// Type of the values.
        values: Box<Type>,
        /// Whether server-side apply replaces it as a whole.
        atomic: bool,
    },
}

/// A reference to the shape of a struct.
#[derive(Debug, Clone)]
pub enum StructRef {
    /// An entry of the built-in table.
    Builtin(u32),
    /// A shape made at run time.
    Own(Arc<TypeDef>),
}

impl PartialEq for StructRef {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Builtin(a), Self::Builtin(b)) => a == b,
            (Self::Own(a), Self::Own(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl StructRef {
    /// The shape itself.
    #[must_use]
    pub fn get(&self) -> &TypeDef {
        match self {
            Self::Builtin(index) => &builtin().types[*index as usize],
            Self::Own(def) => def,
        }
    }
}

/// What a strategic merge patch does with a map or list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PatchRule {
    /// `merge`, `replace` or unset (lists are replaced, maps merged).
    pub strategy: Option<PatchStrategy>,
    /// Whether patches made for this field carry `$retainKeys`.
    pub retain_keys: bool,
    /// Field by which the elements of a list are matched.
    pub merge_key: Option<String>,
}

/// See [`PatchRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchStrategy {
    /// Elements are merged one by one.
    Merge,
    /// The patch replaces the value.
    Replace,
}

/// One field of a struct.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// JSON name.
    pub name: String,
    /// Type of its value.
    pub ty: Type,
    /// Whether the schema calls it required.
    pub required: bool,
    /// Whether Kubernetes holds the struct by value, so that it is always
    /// present there, if only as `{}`.
    pub by_value: bool,
    /// What a strategic merge patch does.
    pub patch: PatchRule,
    /// Value that counts when a key field of an associative list is absent.
    pub default: Option<Value>,
}

/// The shape of a struct.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TypeDef {
    /// Definition name in OpenAPI: `io.k8s.api.apps.v1.Deployment`.
    pub name: String,
    /// Fields, sorted by name.
    pub fields: Vec<Field>,
    /// Group, version and kind, when objects of this shape stand alone.
    pub kinds: Vec<(String, String, String)>,
    /// Whether server-side apply replaces it as a whole.
    pub atomic: bool,
    /// Whether fields that are not listed are kept as they are.
    pub open: bool,
    /// Whether it comes from a custom resource, whose nulls are values.
    pub custom: bool,
}

impl TypeDef {
    /// Whether it says nothing at all: values speak for themselves.
    #[must_use]
    pub fn is_anything(&self) -> bool {
        self.open && self.fields.is_empty() && !self.atomic
    }

    /// A field by name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let index = self.fields.binary_search_by(|field| field.name.as_str().cmp(name)).ok()?;
        Some(&self.fields[index])
    }

    /// The name without package: `Deployment`.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// Name as Kubernetes' error messages show it: `v1.Deployment`.
    #[must_use]
    pub fn go_type(&self) -> &str {
        let mut dots = self.name.rmatch_indices('.');
        let _ = dots.next();
        dots.next().map_or(self.name.as_str(), |(at, _)| &self.name[at + 1..])
    }
}

impl Type {
    /// The struct behind this type, if it is one.
    #[must_use]
    pub fn as_struct(&self) -> Option<&TypeDef> {
        match self {
            Self::Struct { def, .. } => Some(def.get()),
            _ => None,
        }
    }

    /// The type of what stands under a key or in a list, for walking.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Type> {
        match self {
            Self::Struct { def, .. } => def.get().field(name).map(|field| &field.ty),
            Self::Map { values, .. } => Some(values),
            Self::List { items, .. } => Some(items),
            _ => None,
        }
    }
}

/// All built-in shapes.
#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<TypeDef>,
    by_kind: HashMap<String, u32>,
    by_name: HashMap<String, u32>,
}

/// The built-in table.
///
/// # Panics
/// When the embedded table is damaged; a test loads it.
pub fn builtin() -> &'static Schema {
    static TABLE: OnceLock<Schema> = OnceLock::new();
    TABLE.get_or_init(|| load::load(include_str!("../../data/schema.txt")).expect("the embedded table is well-formed"))
}

impl Schema {
    /// The shape of a kind.
    #[must_use]
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&TypeDef> {
        let index = self.by_kind.get(&format!("{group}/{version}/{kind}"))?;
        Some(&self.types[*index as usize])
    }

    /// A shape by its OpenAPI definition name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&TypeDef> {
        Some(&self.types[*self.by_name.get(name)? as usize])
    }

    /// Every shape, sorted by definition name.
    #[must_use]
    pub fn types(&self) -> &[TypeDef] {
        &self.types
    }

    /// A type that refers to a built-in shape.
    #[must_use]
    pub fn reference(&self, name: &str) -> Option<Type> {
        let index = *self.by_name.get(name)?;
        Some(Type::Struct { def: StructRef::Builtin(index), atomic: self.types[index as usize].atomic })
    }
}

#[cfg(test)]
mod tests;
