//! Which functions there are, and for which types: a table of signatures that
//! the type checker works with.
//!
//! Source: `cel-go/common/stdlib`, `cel-go/cel/library.go` (optionals),
//! `cel-go/ext/{strings,sets}.go`, `k8s.io/apiserver/pkg/cel/library`, as put
//! together in `k8s.io/apiserver/pkg/cel/environment/base.go` for version 1.36.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::types::Type;

/// One signature of a function.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Overload {
    /// Whether the first argument stands before the dot.
    pub member: bool,
    /// Types of the arguments, the receiver first.
    pub args: Vec<Type>,
    /// Type of the result.
    pub result: Type,
}

/// Functions by name.
pub(crate) type Functions = HashMap<&'static str, Vec<Overload>>;

/// Types that libraries add, by the short name used in the table.
pub(crate) const OPAQUE: &[(&str, &str)] = &[
    ("URL", "kubernetes.URL"),
    ("Quantity", "kubernetes.Quantity"),
    ("IP", "net.IP"),
    ("CIDR", "net.CIDR"),
    ("Format", "kubernetes.NamedFormat"),
    ("Semver", "kubernetes.Semver"),
    ("Authorizer", "kubernetes.authorization.Authorizer"),
    ("PathCheck", "kubernetes.authorization.PathCheck"),
    ("GroupCheck", "kubernetes.authorization.GroupCheck"),
    ("ResourceCheck", "kubernetes.authorization.ResourceCheck"),
    ("Decision", "kubernetes.authorization.Decision"),
];

/// One function a line: name, signatures. A receiver stands before a dot.
const TABLE: &str = "
_?_:_ (bool,A,A)A
_&&_ (bool,bool)bool
_||_ (bool,bool)bool
!_ (bool)bool
_==_ (A,A)bool
_!=_ (A,A)bool
_+_ (bytes,bytes)bytes (double,double)double (duration,duration)duration (duration,timestamp)timestamp \
(timestamp,duration)timestamp (int,int)int (list(A),list(A))list(A) (string,string)string (uint,uint)uint
_/_ (double,double)double (int,int)int (uint,uint)uint
_%_ (int,int)int (uint,uint)uint
_*_ (double,double)double (int,int)int (uint,uint)uint
-_ (double)double (int)int
_-_ (double,double)double (duration,duration)duration (int,int)int (timestamp,duration)timestamp \
(timestamp,timestamp)duration (uint,uint)uint
_[_] (list(A),int)A (map(A,B),A)B (optional(list(V)),int)optional(V) (optional(map(K,V)),K)optional(V)
_[?_] (list(V),int)optional(V) (optional(list(V)),int)optional(V) (map(K,V),K)optional(V) (optional(map(K,V)),K)optional(V)
@in (A,list(A))bool (A,map(A,B))bool
size (bytes)int bytes.()int (list(A))int list(A).()int (map(A,B))int map(A,B).()int (string)int string.()int
type (A)type(A)
dyn (A)dyn
bool (bool)bool (string)bool
bytes (bytes)bytes (string)bytes
double (double)double (int)double (string)double (uint)double
duration (duration)duration (int)duration (string)duration
int (int)int (double)int (duration)int (string)int (timestamp)int (uint)int
string (string)string (bool)string (bytes)string (double)string (duration)string (int)string (timestamp)string (uint)string \
(IP)string (CIDR)string
timestamp (timestamp)timestamp (int)timestamp (string)timestamp
uint (uint)uint (double)uint (int)uint (string)uint
contains string.(string)bool
endsWith string.(string)bool
startsWith string.(string)bool
matches (string,string)bool string.(string)bool
getFullYear timestamp.()int timestamp.(string)int
getMonth timestamp.()int timestamp.(string)int
getDayOfYear timestamp.()int timestamp.(string)int
getDayOfMonth timestamp.()int timestamp.(string)int
getDate timestamp.()int timestamp.(string)int
getDayOfWeek timestamp.()int timestamp.(string)int
getHours timestamp.()int timestamp.(string)int duration.()int
getMinutes timestamp.()int timestamp.(string)int duration.()int
getSeconds timestamp.()int timestamp.(string)int duration.()int
getMilliseconds timestamp.()int timestamp.(string)int duration.()int
optional.of (V)optional(V)
optional.ofNonZeroValue (V)optional(V)
optional.none ()optional(V)
optional.unwrap (list(optional(V)))list(V)
unwrapOpt list(optional(V)).()list(V)
hasValue optional(V).()bool
value optional(V).()V
or optional(V).(optional(V))optional(V)
orValue optional(V).(V)V
first list(V).()optional(V)
last list(V).()optional(V)
charAt string.(int)string
format string.(list(dyn))string
indexOf string.(string)int string.(string,int)int list(A).(A)int
lastIndexOf string.(string)int string.(string,int)int list(A).(A)int
join list(string).()string list(string).(string)string
lowerAscii string.()string
upperAscii string.()string
replace string.(string,string)string string.(string,string,int)string
split string.(string)list(string) string.(string,int)list(string)
substring string.(int)string string.(int,int)string
trim string.()string
strings.quote (string)string
sets.contains (list(A),list(A))bool
sets.equivalent (list(A),list(A))bool
sets.intersects (list(A),list(A))bool
find string.(string)string
findAll string.(string)list(string) string.(string,int)list(string)
isSorted list(int).()bool list(uint).()bool list(double).()bool list(bool).()bool list(duration).()bool \
list(timestamp).()bool list(string).()bool list(bytes).()bool
sum list(int).()int list(uint).()uint list(double).()double list(duration).()duration
min list(int).()int list(uint).()uint list(double).()double list(bool).()bool list(duration).()duration \
list(timestamp).()timestamp list(string).()string list(bytes).()bytes
max list(int).()int list(uint).()uint list(double).()double list(bool).()bool list(duration).()duration \
list(timestamp).()timestamp list(string).()string list(bytes).()bytes
url (string)URL
isURL (string)bool
getScheme URL.()string
getHost URL.()string
getHostname URL.()string
getPort URL.()string
getEscapedPath URL.()string
getQuery URL.()map(string,list(string))
quantity (string)Quantity
isQuantity (string)bool
sign Quantity.()int
isInteger Quantity.()bool
asInteger Quantity.()int
asApproximateFloat Quantity.()double
add Quantity.(Quantity)Quantity Quantity.(int)Quantity
sub Quantity.(Quantity)Quantity Quantity.(int)Quantity
isGreaterThan Quantity.(Quantity)bool Semver.(Semver)bool
isLessThan Quantity.(Quantity)bool Semver.(Semver)bool
compareTo Quantity.(Quantity)int Semver.(Semver)int
ip (string)IP CIDR.()IP
isIP (string)bool
ip.isCanonical (string)bool
family IP.()int
isUnspecified IP.()bool
isLoopback IP.()bool
isLinkLocalMulticast IP.()bool
isLinkLocalUnicast IP.()bool
isGlobalUnicast IP.()bool
cidr (string)CIDR
isCIDR (string)bool
containsIP CIDR.(string)bool CIDR.(IP)bool
containsCIDR CIDR.(string)bool CIDR.(CIDR)bool
prefixLength CIDR.()int
masked CIDR.()CIDR
format.named (string)optional(Format)
format.dns1123Label ()Format
format.dns1123Subdomain ()Format
format.dns1035Label ()Format
format.qualifiedName ()Format
format.dns1123LabelPrefix ()Format
format.dns1123SubdomainPrefix ()Format
format.dns1035LabelPrefix ()Format
format.labelValue ()Format
format.uri ()Format
format.uuid ()Format
format.byte ()Format
format.date ()Format
format.datetime ()Format
validate Format.(string)optional(list(string))
semver (string)Semver (string,bool)Semver
isSemver (string)bool (string,bool)bool
major Semver.()int
minor Semver.()int
patch Semver.()int
path Authorizer.(string)PathCheck
group Authorizer.(string)GroupCheck
serviceAccount Authorizer.(string,string)Authorizer
resource GroupCheck.(string)ResourceCheck
subresource ResourceCheck.(string)ResourceCheck
namespace ResourceCheck.(string)ResourceCheck
name ResourceCheck.(string)ResourceCheck
fieldSelector ResourceCheck.(string)ResourceCheck
labelSelector ResourceCheck.(string)ResourceCheck
check PathCheck.(string)Decision ResourceCheck.(string)Decision
errored Decision.()bool
error Decision.()string
allowed Decision.()bool
reason Decision.()string
jsonpatch.escapeKey (string)string
";

/// All functions.
pub(crate) fn functions() -> &'static Functions {
    static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let mut found = Functions::new();
        for line in TABLE.lines().filter(|line| !line.is_empty()) {
            let mut words = line.split_whitespace();
            let Some(name) = words.next() else { continue };
            found.insert(name, words.map(overload).collect());
        }
        for name in ["_<_", "_<=_", "_>_", "_>=_"] {
            found.insert(name, orders());
        }
        found
    })
}

/// Signatures of an order: like with like, and numbers with numbers.
fn orders() -> Vec<Overload> {
    let pair = |a: &Type, b: &Type| Overload { member: false, args: vec![a.clone(), b.clone()], result: Type::Bool };
    let numbers = [Type::Int, Type::Uint, Type::Double];
    let mut found = vec![pair(&Type::Bool, &Type::Bool)];
    for a in &numbers {
        found.extend(numbers.iter().map(|b| pair(a, b)));
    }
    found.extend([Type::String, Type::Bytes, Type::Timestamp, Type::Duration].iter().map(|ty| pair(ty, ty)));
    found
}

fn overload(text: &str) -> Overload {
    let mut reader = Reader { rest: text };
    let mut args = Vec::new();
    let member = !text.starts_with('(');
    if member {
        args.push(reader.ty());
        reader.skip('.');
    }
    reader.skip('(');
    while !reader.rest.starts_with(')') {
        args.push(reader.ty());
        reader.skip(',');
    }
    reader.skip(')');
    Overload { member, args, result: reader.ty() }
}

/// Reads the types of the table; what is no type is a mistake in the table,
/// which a test finds.
struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn skip(&mut self, c: char) {
        self.rest = self.rest.strip_prefix(c).unwrap_or(self.rest);
    }

    fn ty(&mut self) -> Type {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        match name {
            "list" | "optional" | "type" | "map" => {
                self.skip('(');
                let first = self.ty();
                let made = match name {
                    "list" => Type::list(first),
                    "optional" => Type::optional(first),
                    "type" => Type::of_type(first),
                    _ => {
                        self.skip(',');
                        let values = self.ty();
                        Type::map(first, values)
                    }
                };
                self.skip(')');
                made
            }
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "timestamp" => Type::Timestamp,
            "duration" => Type::Duration,
            "dyn" => Type::Dyn,
            _ if name.len() == 1 => Type::Param(Arc::from(name)),
            _ => OPAQUE.iter().find(|(short, _)| *short == name).map_or(Type::Error, |(_, long)| Type::Opaque(long)),
        }
    }
}

/// A type whose name can stand in an expression: `type(x) == int`.
pub(crate) fn type_by_name(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null_type" => Type::Null,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::of_type(Type::Dyn),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        _ => return OPAQUE.iter().find(|(_, long)| *long == name).map(|(_, long)| Type::Opaque(long)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_read_and_every_function_exists() {
        for (name, overloads) in functions() {
            assert!(!overloads.is_empty(), "{name}");
            for overload in overloads {
                assert!(
                    !overload.args.contains(&Type::Error) && overload.result != Type::Error,
                    "{name}: {overload:?}"
                );
            }
            let built_in = matches!(*name, "_?_:_" | "_&&_" | "_||_" | "or" | "orValue");
            assert!(built_in || crate::functions::find(name).is_some(), "{name} is declared, but does nothing");
        }
    }
}
