//! Addresses and networks, and addresses of the web.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Function, Outcome, no_overload};
use crate::error::EvalError;
use crate::library::net::{self, Cidr};
use crate::library::url::Url;
use crate::value::{Key, Map, Text, Value};

pub(super) const TABLE: &[(&str, Function)] = &[
    ("ip", ip),
    ("isIP", |name, args| test(name, args, |text| net::parse_ip(text).is_ok())),
    ("ip.isCanonical", is_canonical),
    ("family", family),
    ("isUnspecified", property),
    ("isLoopback", property),
    ("isLinkLocalMulticast", property),
    ("isLinkLocalUnicast", property),
    ("isGlobalUnicast", property),
    ("cidr", |name, args| match args {
        [Value::String(text)] => Cidr::parse(text).map(Value::Cidr).map_err(EvalError::new),
        _ => no_overload(name, args),
    }),
    ("isCIDR", |name, args| test(name, args, |text| Cidr::parse(text).is_ok())),
    ("containsIP", contains_ip),
    ("containsCIDR", contains_cidr),
    ("prefixLength", |name, args| match args {
        [Value::Cidr(net)] => Ok(Value::Int(i64::from(net.bits()))),
        _ => no_overload(name, args),
    }),
    ("masked", |name, args| match args {
        [Value::Cidr(net)] => Ok(Value::Cidr(net.masked())),
        _ => no_overload(name, args),
    }),
    ("url", |name, args| match args {
        [Value::String(text)] => Url::parse(text).map(|url| Value::Url(Arc::new(url))).map_err(EvalError::new),
        _ => no_overload(name, args),
    }),
    ("isURL", |name, args| test(name, args, |text| Url::parse(text).is_ok())),
    ("getScheme", |name, args| part(name, args, |url| url.scheme().to_owned())),
    ("getHost", |name, args| part(name, args, |url| url.host().to_owned())),
    ("getHostname", |name, args| part(name, args, |url| url.hostname().to_owned())),
    ("getPort", |name, args| part(name, args, |url| url.port().to_owned())),
    ("getEscapedPath", |name, args| part(name, args, Url::escaped_path)),
    ("getQuery", query),
];

fn test<'a>(name: &str, args: &[Value<'a>], holds: fn(&str) -> bool) -> Outcome<'a> {
    match args {
        [Value::String(text)] => Ok(Value::Bool(holds(text))),
        _ => no_overload(name, args),
    }
}

fn ip<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => net::parse_ip(text).map(Value::Ip).map_err(EvalError::new),
        [Value::Cidr(net)] => Ok(Value::Ip(net.ip())),
        _ => no_overload(name, args),
    }
}

fn is_canonical<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => {
            let address = net::parse_ip(text).map_err(EvalError::new)?;
            Ok(Value::Bool(address.to_string() == **text))
        }
        _ => no_overload(name, args),
    }
}

fn family<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Ip(IpAddr::V4(_))] => Ok(Value::Int(4)),
        [Value::Ip(IpAddr::V6(_))] => Ok(Value::Int(6)),
        _ => no_overload(name, args),
    }
}

fn property<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Ip(address)] => net::property(*address, name).map(Value::Bool).ok_or_else(EvalError::no_such_overload),
        _ => no_overload(name, args),
    }
}

fn contains_ip<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let (net, address) = match args {
        [Value::Cidr(net), Value::Ip(address)] => (net, *address),
        [Value::Cidr(net), Value::String(text)] => (net, net::parse_ip(text).map_err(EvalError::new)?),
        _ => return no_overload(name, args),
    };
    Ok(Value::Bool(net.contains(address)))
}

fn contains_cidr<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let (net, other) = match args {
        [Value::Cidr(net), Value::Cidr(other)] => (net, *other),
        [Value::Cidr(net), Value::String(text)] => (net, Cidr::parse(text).map_err(EvalError::new)?),
        _ => return no_overload(name, args),
    };
    Ok(Value::Bool(net.contains_net(other)))
}

fn part<'a>(name: &str, args: &[Value<'a>], of: fn(&Url) -> String) -> Outcome<'a> {
    match args {
        [Value::Url(url)] => Ok(Value::from(of(url))),
        _ => no_overload(name, args),
    }
}

fn query<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Url(url)] = args else { return no_overload(name, args) };
    let map: BTreeMap<Key<'a>, Value<'a>> = url
        .query()
        .into_iter()
        .map(|(key, values)| {
            (Key::String(Text::from(key)), Value::from(values.into_iter().map(Value::from).collect::<Vec<_>>()))
        })
        .collect();
    Ok(Value::Map(Map::Owned(Arc::new(map))))
}
