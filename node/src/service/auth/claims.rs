//! The claims of a token: where user and role stand, and what names of roles mean.

use std::collections::BTreeMap;

use actors::ids::UserId;
use serde_json::{Map, Value};

use super::Role;
use crate::config::{Jwt, RoleName};

/// The claims of a verified token.
pub(super) type Claims = Map<String, Value>;

/// How claims are read.
#[derive(Debug, Clone)]
pub(super) struct ClaimRules {
    user: String,
    role: String,
    /// The table of the configuration. With an empty one no token has a role.
    names: Option<BTreeMap<String, RoleName>>,
}

impl ClaimRules {
    pub(super) fn new(config: &Jwt) -> Self {
        Self {
            user: config.user_claim.clone(),
            role: config.role_claim.clone(),
            names: config.roles.clone(),
        }
    }

    /// True if the user is the subject of the token.
    pub(super) fn names_user_by_sub(&self) -> bool {
        self.user == "sub"
    }

    /// Returns the user, if the claim is a user's id.
    pub(super) fn user(&self, claims: &Claims) -> Option<UserId> {
        UserId::parse(find(claims, &self.user)?.as_str()?).ok()
    }

    /// Returns the role. Of several roles it is the one with the most rights.
    pub(super) fn role(&self, claims: &Claims) -> Role {
        let names = match find(claims, &self.role) {
            Some(Value::Array(names)) => names.as_slice(),
            Some(name) => std::slice::from_ref(name),
            None => &[],
        };
        let roles = names
            .iter()
            .filter_map(Value::as_str)
            .filter_map(|name| self.meaning(name));
        roles.map(Role::from).max().unwrap_or(Role::User)
    }

    /// Returns what the name of a role in a token means. An identity provider may have roles of its own with
    /// the names of ours, so these count only without a table.
    fn meaning(&self, name: &str) -> Option<RoleName> {
        match &self.names {
            Some(names) => names.get(name).copied(),
            None => RoleName::parse(name),
        }
    }

    /// Returns claims that name this user and this role. `None` if no name means the role.
    pub(super) fn claims(&self, user: &UserId, role: Role) -> Option<Claims> {
        let mut claims = Claims::new();
        set(&mut claims, &self.user, user.as_str());
        if role != Role::User {
            let name = match &self.names {
                Some(names) => names.iter().find(|(_, name)| Role::from(**name) == role)?.0,
                None => role.name(),
            };
            set(&mut claims, &self.role, name);
        }
        Some(claims)
    }
}

/// Returns the claim with this name, or else the one at this path, in which each dot leads into an object.
/// Names of claims that are URLs have dots as well.
fn find<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(dot, _)| {
        let within = claims.get(&path[..dot])?.as_object()?;
        find(within, &path[dot + 1..])
    })
}

/// Sets the claim at this path.
fn set(claims: &mut Claims, path: &str, text: &str) {
    match path.split_once('.') {
        None => {
            claims.insert(path.to_owned(), text.into());
        }
        Some((name, rest)) => {
            let within = claims.entry(name).or_insert_with(|| Claims::new().into());
            if let Some(within) = within.as_object_mut() {
                set(within, rest, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(user: &str, role: &str, names: &[(&str, RoleName)]) -> ClaimRules {
        let table = names.iter().map(|(name, role)| ((*name).to_owned(), *role));
        ClaimRules {
            user: user.to_owned(),
            role: role.to_owned(),
            names: (!names.is_empty()).then(|| table.collect()),
        }
    }

    fn claims(value: Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_claim_is_found_by_its_name_or_by_a_path_of_names() {
        let claims = claims(json!({
            "a": {"b": {"c": 1, "x": 5}, "b.c": 2}, "a.b": {"d": 3}, "https://shop.example/role": 4, "e": "text"
        }));
        for (path, expected) in [
            ("a.b.c", Some(2)),
            ("a.b.d", Some(3)),
            ("a.b.x", Some(5)),
            ("https://shop.example/role", Some(4)),
            ("a.c", None),
            ("e.f", None),
            ("b", None),
        ] {
            assert_eq!(find(&claims, path).and_then(Value::as_u64), expected, "{path}");
        }
    }

    #[test]
    fn the_role_with_the_most_rights_counts() {
        let own = rules("sub", "realm_access.roles", &[]);
        let role =
            |rules: &ClaimRules, roles: Value| rules.role(&claims(json!({"realm_access": {"roles": roles}})));
        for (roles, expected) in [
            (json!("viewer"), Role::Viewer),
            (json!(["viewer", "service", "offline_access"]), Role::Service),
            (json!(["service", "operator"]), Role::Operator),
            (json!(["admin", "viewer"]), Role::Admin),
            (json!(["Admin", 5, null, ["admin"]]), Role::User),
            (json!({"admin": true}), Role::User),
            (json!(null), Role::User),
        ] {
            assert_eq!(role(&own, roles.clone()), expected, "{roles}");
        }
        let mapped = rules(
            "sub",
            "realm_access.roles",
            &[("shop-admins", RoleName::Admin), ("tills", RoleName::Service)],
        );
        assert_eq!(role(&mapped, json!(["tills", "shop-admins"])), Role::Admin);
        assert_eq!(role(&mapped, json!("tills")), Role::Service);
        // Without an entry in the table, a name of ours is that of a role of the identity provider.
        assert_eq!(role(&mapped, json!(["admin"])), Role::User);
    }

    #[test]
    fn with_an_empty_table_no_name_of_a_role_means_anything() {
        let config = Jwt {
            roles: Some(BTreeMap::new()),
            ..Jwt::default()
        };
        let rules = ClaimRules::new(&config);
        assert_eq!(rules.role(&claims(json!({"role": "admin"}))), Role::User);
        assert_eq!(rules.claims(&UserId::parse("alice").unwrap(), Role::Admin), None);
    }

    #[test]
    fn claims_that_are_made_are_read_the_same() {
        let alice = UserId::parse("alice").unwrap();
        for rules in [
            rules("sub", "role", &[]),
            rules("ext.user", "ext.roles", &[]),
            rules("https://shop.example/user", "groups", &[("a", RoleName::Admin)]),
        ] {
            for role in [Role::User, Role::Admin] {
                let claims = rules.claims(&alice, role).unwrap();
                assert_eq!(
                    (rules.user(&claims), rules.role(&claims)),
                    (Some(alice.clone()), role)
                );
            }
        }
        let mapped = rules("sub", "role", &[("a", RoleName::Admin)]);
        assert_eq!(mapped.claims(&alice, Role::Viewer), None);
    }
}
