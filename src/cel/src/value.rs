//! Values at run time. Lists and maps from outside are views on JSON: what is
//! not looked at is not copied.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Map as JsonMap, Value as Json};

use crate::error::EvalError;
use crate::library::authz::{Authorizer, AuthzVal, Check};
use crate::library::format::NamedFormat;
use crate::library::net::Cidr;
use crate::library::time::{self, Timestamp};
use crate::library::url::Url;
use crate::limits::MAX_VALUE_DEPTH;
use crate::quantity::Quantity;
use crate::schema::{DeclKind, DeclType};
use crate::types::Type;

/// Text, borrowed where possible.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    /// Part of something that outlives the evaluation.
    Borrowed(&'a str),
    /// Made during the evaluation, or a constant.
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl From<Arc<str>> for Text<'_> {
    fn from(text: Arc<str>) -> Self {
        Self::Shared(text)
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::Shared(Arc::from(text))
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::Borrowed(text)
    }
}

/// A value.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// True or false.
    Bool(bool),
    /// 64 bits, signed.
    Int(i64),
    /// 64 bits, unsigned.
    Uint(u64),
    /// 64 bits, IEEE 754.
    Double(f64),
    /// Unicode text.
    String(Text<'a>),
    /// Octets.
    Bytes(Arc<[u8]>),
    /// A list.
    List(List<'a>),
    /// A map or an object with fields.
    Map(Map<'a>),
    /// A point in time.
    Timestamp(Timestamp),
    /// A span of time, in nanoseconds.
    Duration(i64),
    /// A type.
    Type(Type),
    /// Perhaps a value.
    Optional(Option<Arc<Value<'a>>>),
    /// An object that an expression made: `Object{...}`.
    Object(Arc<ObjectVal<'a>>),
    /// An amount.
    Quantity(Quantity),
    /// An address of the web.
    Url(Arc<Url>),
    /// An internet address.
    Ip(IpAddr),
    /// An internet network.
    Cidr(Cidr),
    /// A named format of text.
    Format(&'static NamedFormat),
    /// A semantic version.
    Semver(Arc<semver::Version>),
    /// A question to the authorizer in the making, or its answer.
    Authz(Arc<AuthzVal<'a>>),
    /// Data that the schema keeps without knowing; can only be compared.
    Unknown(&'a Json),
}

/// A list.
#[derive(Debug, Clone)]
pub enum List<'a> {
    /// A view on JSON; without declaration its elements are dynamic.
    Json(&'a [Json], Option<&'a DeclType>),
    /// Made during the evaluation; the declaration says how it compares.
    Owned(Arc<Vec<Value<'a>>>, Option<&'a DeclType>),
}

/// A map.
#[derive(Debug, Clone)]
pub enum Map<'a> {
    /// A view on JSON; without declaration its values are dynamic.
    Json(&'a JsonMap<String, Json>, Option<&'a DeclType>),
    /// Made during the evaluation.
    Owned(Arc<BTreeMap<Key<'a>, Value<'a>>>),
}

/// The key of a map. Whole numbers of all types are one.
#[derive(Debug, Clone)]
pub enum Key<'a> {
    /// True or false.
    Bool(bool),
    /// A whole number, and whether it is a `uint`.
    Number(i128, bool),
    /// Text.
    String(Text<'a>),
}

/// An object that an expression made.
#[derive(Debug, Clone)]
pub struct ObjectVal<'a> {
    /// Name of its type, as in `Object.spec`.
    pub type_name: Arc<str>,
    /// The fields given, by name.
    pub fields: BTreeMap<Arc<str>, Value<'a>>,
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Number(a, _), Self::Number(b, _)) => a.cmp(b),
            (Self::String(a), Self::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Bool(_), _) | (Self::Number(..), Self::String(_)) => Ordering::Less,
            _ => Ordering::Greater,
        }
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key<'_> {}

impl<'a> Key<'a> {
    /// The key that a value is.
    pub(crate) fn of(value: &Value<'a>) -> Option<Self> {
        Some(match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Number(i128::from(*value), false),
            Value::Uint(value) => Self::Number(i128::from(*value), true),
            // Lookups by a whole double find the number.
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e19 => Self::Number(*value as i128, false),
            Value::String(text) => Self::String(text.clone()),
            _ => return None,
        })
    }

    /// The key as a value.
    pub(crate) fn value(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(value, true) => Value::Uint(u64::try_from(*value).unwrap_or_default()),
            Self::Number(value, false) => Value::Int(i64::try_from(*value).unwrap_or_default()),
            Self::String(text) => Value::String(text.clone()),
        }
    }
}

impl From<Arc<str>> for Value<'_> {
    fn from(text: Arc<str>) -> Self {
        Self::String(Text::Shared(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::String(Text::from(text))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<'a> From<Vec<Value<'a>>> for Value<'a> {
    fn from(items: Vec<Value<'a>>) -> Self {
        Self::List(List::Owned(Arc::new(items), None))
    }
}

impl<'a> Value<'a> {
    /// JSON without schema: every number is an int where it is whole and
    /// fits, a double otherwise.
    #[must_use]
    pub fn dynamic(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(number) => Self::Int(number),
                None => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::String(Text::Borrowed(text)),
            Json::Array(items) => Self::List(List::Json(items, None)),
            Json::Object(map) => Self::Map(Map::Json(map, None)),
        }
    }

    /// A JSON object without schema.
    #[must_use]
    pub fn dynamic_map(map: &'a JsonMap<String, Json>) -> Self {
        Self::Map(Map::Json(map, None))
    }

    /// JSON in the types of a declaration. What lies within is converted when
    /// it is looked at.
    ///
    /// # Errors
    /// When the value itself is not of the declared type.
    pub fn typed(json: &'a Json, decl: &'a DeclType) -> Result<Self, EvalError> {
        let wrong =
            |expected: &str| EvalError::new(format!("invalid data, expected {expected}, got {}", go_name(json)));
        if json.is_null() && !matches!(decl.kind, DeclKind::Dyn) {
            return if decl.nullable {
                Ok(Self::Null)
            } else {
                Err(EvalError::new("invalid data, got null for schema with nullable=false"))
            };
        }
        Ok(match (&decl.kind, json) {
            (DeclKind::Dyn, _) => Self::dynamic(json),
            (DeclKind::Unknown, _) => Self::Unknown(json),
            (DeclKind::IntOrString, Json::String(text)) => Self::String(Text::Borrowed(text)),
            (DeclKind::IntOrString, Json::Number(number)) if number.is_i64() => {
                Self::Int(number.as_i64().unwrap_or_default())
            }
            (DeclKind::IntOrString, _) => {
                return Err(EvalError::new(
                    "invalid data, expected XIntOrString value to be either a string or integer",
                ));
            }
            (DeclKind::Bool, Json::Bool(value)) => Self::Bool(*value),
            (DeclKind::Bool, _) => return Err(wrong("bool")),
            (DeclKind::Int, Json::Number(number)) if number.is_i64() => Self::Int(number.as_i64().unwrap_or_default()),
            (DeclKind::Int, _) => return Err(wrong("int")),
            (DeclKind::Double, Json::Number(number)) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            (DeclKind::Double, _) => return Err(wrong("float")),
            (DeclKind::String, Json::String(text)) => Self::String(Text::Borrowed(text)),
            (DeclKind::Bytes, Json::String(text)) => {
                let decoded = base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .map_err(|error| EvalError::new(format!("Invalid byte formatted string {text}: {error}")))?;
                Self::Bytes(decoded.into())
            }
            (DeclKind::Duration, Json::String(text)) => Self::Duration(
                time::parse_openapi_duration(text)
                    .ok_or_else(|| EvalError::new(format!("Invalid duration {text}: unable to parse {text}")))?,
            ),
            (DeclKind::Date, Json::String(text)) => Self::Timestamp(
                time::parse_date(text)
                    .ok_or_else(|| EvalError::new(format!("Invalid date formatted string {text}")))?,
            ),
            (DeclKind::DateTime, Json::String(text)) => Self::Timestamp(
                time::parse_date_time(text)
                    .ok_or_else(|| EvalError::new(format!("Invalid date-time formatted string {text}")))?,
            ),
            (DeclKind::String | DeclKind::Bytes | DeclKind::Duration | DeclKind::Date | DeclKind::DateTime, _) => {
                return Err(wrong("string"));
            }
            (DeclKind::List { .. }, Json::Array(items)) => Self::List(List::Json(items, Some(decl))),
            (DeclKind::List { .. }, _) => {
                return Err(EvalError::new("invalid data, expected an array for the provided schema with type=array"));
            }
            (DeclKind::Map { .. } | DeclKind::Object { .. }, Json::Object(map)) => {
                Self::Map(Map::Json(map, Some(decl)))
            }
            (DeclKind::Map { .. } | DeclKind::Object { .. }, _) => {
                return Err(EvalError::new("invalid data, expected a map for the provided schema with type=object"));
            }
        })
    }

    /// The variable `authorizer`.
    #[must_use]
    pub fn authorizer(authorizer: &'a dyn Authorizer) -> Self {
        Self::Authz(Arc::new(AuthzVal::new(authorizer)))
    }

    /// The variable `authorizer.requestResource`: a question about the
    /// resource of a request, without a verb yet.
    #[must_use]
    pub fn request_resource(authorizer: &'a dyn Authorizer, check: Check) -> Self {
        Self::Authz(Arc::new(AuthzVal::resource(authorizer, check)))
    }

    /// Its type, as far as values know theirs.
    #[must_use]
    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(Map::Json(_, Some(decl))) if matches!(decl.kind, DeclKind::Object { .. }) => {
                Type::Object(Arc::new(Named(Arc::from(decl.object_name()))))
            }
            Self::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Self::Timestamp(_) => Type::Timestamp,
            Self::Duration(_) => Type::Duration,
            Self::Type(of) => Type::of_type(of.clone()),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Object(object) => Type::Object(Arc::new(Named(Arc::clone(&object.type_name)))),
            Self::Quantity(_) => Type::Opaque("kubernetes.Quantity"),
            Self::Url(_) => Type::Opaque("kubernetes.URL"),
            Self::Ip(_) => Type::Opaque("net.IP"),
            Self::Cidr(_) => Type::Opaque("net.CIDR"),
            Self::Format(_) => Type::Opaque("kubernetes.NamedFormat"),
            Self::Semver(_) => Type::Opaque("kubernetes.Semver"),
            Self::Authz(authz) => Type::Opaque(authz.type_name()),
            Self::Unknown(_) => Type::Dyn,
        }
    }

    pub(crate) fn type_name(&self) -> String {
        self.type_of().runtime_name().to_owned()
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Size as costs count it: characters, octets, elements, entries; 1 for
    /// everything else.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::String(text) => char_count(text),
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Ip(IpAddr::V4(_)) => 4,
            Self::Ip(IpAddr::V6(_)) => 16,
            Self::Cidr(cidr) => u64::from(cidr.bits()).div_ceil(8),
            _ => 1,
        }
    }

    /// The value as JSON: what a message, an annotation or a patch holds.
    ///
    /// # Errors
    /// For values that have no JSON form, and ones nested too deep.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        self.json_at(0)
    }

    fn json_at(&self, depth: usize) -> Result<Json, EvalError> {
        if depth > MAX_VALUE_DEPTH {
            return Err(EvalError::new("value is nested too deep"));
        }
        Ok(match self {
            Self::Null | Self::Optional(None) => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => Json::from(*value),
            Self::Uint(value) => Json::from(*value),
            Self::Double(value) if value.is_finite() => whole(*value),
            Self::String(text) => Json::String(text.to_string()),
            Self::Bytes(bytes) => Json::String(base64::engine::general_purpose::STANDARD.encode(bytes)),
            Self::List(List::Json(items, _)) => Json::Array(items.to_vec()),
            Self::List(List::Owned(items, _)) => {
                Json::Array(items.iter().map(|item| item.json_at(depth + 1)).collect::<Result<_, _>>()?)
            }
            Self::Map(Map::Json(map, _)) => Json::Object((*map).clone()),
            Self::Map(Map::Owned(entries)) => {
                let mut map = JsonMap::new();
                for (key, value) in entries.iter() {
                    let Key::String(key) = key else {
                        return Err(EvalError::new("map keys of JSON objects must be strings"));
                    };
                    map.insert(key.to_string(), value.json_at(depth + 1)?);
                }
                Json::Object(map)
            }
            Self::Timestamp(time) => Json::String(time::format_timestamp(*time)),
            Self::Duration(nanos) => Json::String(time::format_duration(*nanos)),
            Self::Optional(Some(value)) => value.json_at(depth + 1)?,
            Self::Object(object) => {
                let mut map = JsonMap::new();
                for (key, value) in &object.fields {
                    map.insert(key.to_string(), value.json_at(depth + 1)?);
                }
                Json::Object(map)
            }
            Self::Quantity(quantity) => Json::String(quantity.to_string()),
            Self::Unknown(json) => (*json).clone(),
            other => {
                return Err(EvalError::new(format!("unsupported conversion of '{}' to JSON", other.type_name())));
            }
        })
    }
}

/// JSON numbers of Kubernetes are whole where they can be.
fn whole(value: f64) -> Json {
    Json::from(value)
}

pub(crate) fn char_count(text: &str) -> u64 {
    if text.is_ascii() { text.len() as u64 } else { text.chars().count() as u64 }
}

fn go_name(json: &Json) -> &'static str {
    match json {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_i64() => "int64",
        Json::Number(_) => "float64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    }
}

/// A type that is only a name.
struct Named(Arc<str>);

impl crate::types::ObjectType for Named {
    fn name(&self) -> &str {
        &self.0
    }

    fn field(&self, _: &str) -> Option<Type> {
        None
    }
}

impl<'a> List<'a> {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Owned(items, _) => items.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Declaration of the list, where it has one.
    pub(crate) fn decl(&self) -> Option<&'a DeclType> {
        match self {
            Self::Json(_, decl) | Self::Owned(_, decl) => *decl,
        }
    }

    /// An element.
    ///
    /// # Errors
    /// When it is not of the declared type.
    pub fn get(&self, index: usize) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Self::Json(items, decl) => items.get(index).map(|item| child(item, decl.and_then(DeclType::items))),
            Self::Owned(items, _) => items.get(index).cloned().map(Ok),
        }
    }

    /// The elements.
    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, EvalError>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The elements as owned values.
    pub(crate) fn to_vec(&self) -> Result<Vec<Value<'a>>, EvalError> {
        match self {
            Self::Json(..) => self.iter().collect(),
            Self::Owned(items, _) => Ok(items.to_vec()),
        }
    }
}

fn child<'a>(json: &'a Json, decl: Option<&'a DeclType>) -> Result<Value<'a>, EvalError> {
    match decl {
        Some(decl) => Value::typed(json, decl),
        None => Ok(Value::dynamic(json)),
    }
}

impl<'a> Map<'a> {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Owned(map) => map.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a key, or of a field by its escaped name.
    ///
    /// # Errors
    /// When the value is not of the declared type.
    pub fn find(&self, key: &str) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Self::Json(map, None) => map.get(key).map(|json| Ok(Value::dynamic(json))),
            Self::Json(map, Some(decl)) => {
                let (json, decl) = match &decl.kind {
                    DeclKind::Map { values } => (map.get(key)?, &**values),
                    DeclKind::Object { fields, .. } => {
                        let field = fields.get(key)?;
                        (map.get(&field.name)?, &*field.decl)
                    }
                    _ => return None,
                };
                Some(Value::typed(json, decl))
            }
            Self::Owned(map) => map.get(&Key::String(Text::Shared(Arc::from(key)))).cloned().map(Ok),
        }
    }

    /// The value of any key.
    pub(crate) fn find_key(&self, key: &Value<'a>) -> Option<Result<Value<'a>, EvalError>> {
        match (self, key) {
            (Self::Json(..), Value::String(key)) => self.find(key),
            (Self::Json(..), _) => None,
            (Self::Owned(map), key) => map.get(&Key::of(key)?).cloned().map(Ok),
        }
    }

    /// The keys, in order.
    pub(crate) fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Json(map, _) => map.keys().map(|key| Value::String(Text::Borrowed(key))).collect(),
            Self::Owned(map) => map.keys().map(Key::value).collect(),
        }
    }

    /// The entries, in order of keys.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Value<'a>, Result<Value<'a>, EvalError>)> + '_ {
        let keys = self.keys();
        keys.into_iter().filter_map(move |key| {
            let value = match (self, &key) {
                // By the name in JSON, which may not be an identifier.
                (Self::Json(map, decl), Value::String(name)) => {
                    let json = map.get(&**name)?;
                    match decl {
                        Some(decl) => match decl.property_by_json_name(name) {
                            Some(decl) => Value::typed(json, decl),
                            None => Ok(Value::Unknown(json)),
                        },
                        None => Ok(Value::dynamic(json)),
                    }
                }
                _ => self.find_key(&key)?,
            };
            Some((key, value))
        })
    }
}
