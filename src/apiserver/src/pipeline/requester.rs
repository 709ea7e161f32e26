//! Requests for certificates say who made them: the server writes that in,
//! whatever the body says.
//!
//! Source: `pkg/registry/certificates/certificates/strategy.go`.

use barque_api::Object;
use serde_json::{Value, json};

use super::RequestContext;

/// Storage name of requests for certificates.
const REQUESTS: &str = "certificatesigningrequests.certificates.k8s.io";

/// Signs a new object in the name of the one who asks, where its kind has
/// room for that.
pub(super) fn sign(context: &RequestContext, storage: &str, object: &mut Object) {
    if storage != REQUESTS {
        return;
    }
    let user = &context.user;
    let mut put = |field: &str, value: Value, blank: bool| {
        if blank {
            object.remove(&["spec", field]);
        } else {
            object.set(&["spec", field], value);
        }
    };
    put("username", json!(user.name), user.name.is_empty());
    put("uid", json!(user.uid), user.uid.is_empty());
    put("groups", json!(user.groups), user.groups.is_empty());
    put("extra", json!(user.extra), user.extra.is_empty());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::User;

    #[test]
    fn nobody_asks_in_the_name_of_others() {
        let user = User { name: "a".to_owned(), groups: vec!["g".to_owned()], ..User::default() };
        let context = RequestContext::for_user(Arc::new(user));
        let given = json!({"spec": {"username": "b", "uid": "1", "request": "x"}});
        let mut object = Object::from_value(given).expect("an object");
        sign(&context, "pods", &mut object);
        assert_eq!(object.text(&["spec", "username"]), "b");
        sign(&context, REQUESTS, &mut object);
        assert_eq!(object.0["spec"], json!({"username": "a", "groups": ["g"], "request": "x"}));
    }
}
