//! The principal of a request, and what it may do.

use actors::ids::{Author, AuthorKind, UserId};

use super::key_ring::KeyName;
use super::{MissingCredentials, Role, TokenRefusal};
use crate::service::Error;

/// The principal of a request: a user, a named key, both (a gateway names a user beside a key), or neither.
#[derive(Debug)]
pub(crate) struct Principal {
    pub(super) user: Option<UserId>,
    pub(super) key: Option<KeyName>,
    pub(super) role: Role,
    /// Why the token of the request is not accepted, if it has such a token.
    pub(super) refused_token: Option<TokenRefusal>,
    /// True if a header names users, false if tokens do.
    pub(super) is_named_by_header: bool,
}

impl Principal {
    /// Returns the user. Fails if the principal is not a user.
    pub(crate) fn require_user(&self) -> Result<&UserId, Error> {
        match &self.user {
            Some(user) => Ok(user),
            None if self.key.is_some() => {
                Err(Error::Forbidden("only users have coupons; a key is not a user"))
            }
            // In this mode a token cannot name a user, so only the header can be missing.
            None if self.is_named_by_header => Err(Error::Unauthenticated(MissingCredentials::UserHeader)),
            None => Err(self.unauthenticated(MissingCredentials::Token)),
        }
    }

    /// Fails unless the principal is a user, for that user, or a service, for any user.
    pub(crate) fn require_issuer(&self) -> Result<(), Error> {
        if self.role == Role::Service {
            return Ok(());
        }
        self.require_user().map(drop)
    }

    /// Returns the user, if the principal is one.
    pub(crate) fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Fails unless the principal may create and change coupons: an administrator or an operator.
    pub(crate) fn require_admin(&self) -> Result<(), Error> {
        self.require(
            self.role.changes(),
            "only administrators and operators may do this",
        )
    }

    /// Fails unless the principal may use issuances of others.
    pub(crate) fn require_use(&self) -> Result<(), Error> {
        self.require(
            self.role.uses(),
            "only administrators, operators and services may do this",
        )
    }

    /// True if the principal may use issuances of others.
    pub(crate) fn may_use(&self) -> bool {
        self.role.uses()
    }

    /// Fails unless the principal may read everything: an administrator, an operator or a viewer.
    pub(crate) fn require_reader(&self) -> Result<(), Error> {
        self.require(
            self.role.reads(),
            "only administrators, operators and viewers may do this",
        )
    }

    /// Fails unless the principal may read everything, or is a service.
    pub(crate) fn require_reader_or_service(&self) -> Result<(), Error> {
        self.require(
            self.role != Role::User,
            "only administrators, operators, viewers and services may do this",
        )
    }

    /// Fails unless the principal is a service, which may issue for others.
    pub(crate) fn require_service(&self) -> Result<(), Error> {
        if self.role == Role::Service {
            Ok(())
        } else {
            Err(Error::Forbidden("only services may issue for another user"))
        }
    }

    /// Returns what the principal is, and its name. A key counts before a user: the role of the principal is
    /// that of the key. Fails if the principal is unknown.
    pub(crate) fn require_known(&self) -> Result<(AuthorKind, &str), Error> {
        match (&self.key, &self.user) {
            (Some(key), _) => Ok((AuthorKind::Key, key.as_str())),
            (None, Some(user)) => Ok((AuthorKind::User, user.as_str())),
            (None, None) if self.is_named_by_header => {
                Err(self.unauthenticated(MissingCredentials::UserHeaderOrToken))
            }
            (None, None) => Err(self.unauthenticated(MissingCredentials::Token)),
        }
    }

    /// Returns the principal as it is stored with what it asks for. Fails if the principal is unknown.
    pub(crate) fn author(&self) -> Result<Author, Error> {
        let (kind, name) = self.require_known()?;
        // Names of keys are shorter than ids of users, which every author may have.
        Author::new(kind, name).ok_or(Error::Internal { applied: Some(false) })
    }

    /// Returns the role.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// True if the principal may see the issuances of this user: with any role, or as this user.
    pub(crate) fn may_see(&self, user: &UserId) -> bool {
        self.role != Role::User || self.user.as_ref() == Some(user)
    }

    fn is_known(&self) -> bool {
        self.key.is_some() || self.user.is_some()
    }

    /// Fails unless the principal is allowed to do something. `otherwise` says who is.
    fn require(&self, is_allowed: bool, otherwise: &'static str) -> Result<(), Error> {
        if is_allowed {
            Ok(())
        } else if self.is_known() {
            Err(Error::Forbidden(otherwise))
        } else {
            Err(self.unauthenticated(MissingCredentials::Token))
        }
    }

    fn unauthenticated(&self, missing: MissingCredentials) -> Error {
        match self.refused_token {
            Some(refusal) => Error::InvalidToken(refusal),
            None => Error::Unauthenticated(missing),
        }
    }
}
