//! Roles of principals, and what each may do.

use crate::config::RoleName;

/// The rights of a principal. Roles are in the order in which one is chosen if a token names several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// The rights of every user.
    User,
    /// Reads everything.
    Viewer,
    /// Issues for others, uses issuances for orders, exports them, and reads one, its uses, and what a user
    /// has.
    Service,
    /// Creates and changes coupons, issues to many users, uses and revokes issuances, and reads everything.
    Operator,
    /// Everything.
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Admin => Self::Admin,
            RoleName::Operator => Self::Operator,
            RoleName::Service => Self::Service,
            RoleName::Viewer => Self::Viewer,
        }
    }
}

impl Role {
    /// Returns the name of the role.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Viewer => "viewer",
            Self::Service => "service",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// True if the role creates and changes coupons.
    pub(crate) const fn changes(self) -> bool {
        matches!(self, Self::Admin | Self::Operator)
    }

    /// True if the role uses issuances of others.
    pub(crate) const fn uses(self) -> bool {
        matches!(self, Self::Admin | Self::Operator | Self::Service)
    }

    /// True if the role reads everything.
    pub(crate) const fn reads(self) -> bool {
        matches!(self, Self::Admin | Self::Operator | Self::Viewer)
    }
}
