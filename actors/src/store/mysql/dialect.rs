//! All differences between MySQL and MariaDB that this program depends on.

/// The dialect of SQL that the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// MySQL, 8.0.19 or later.
    MySql,
    /// MariaDB, 10.6 or later.
    MariaDb,
}

/// A server's version in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl Dialect {
    /// Returns the dialect and version in a server's `@@version`, such as `9.7.4` or
    /// `10.11.19-MariaDB-0+deb12u1`.
    pub(crate) fn of(version: &str) -> Option<(Self, Version)> {
        let dialect = if version.to_ascii_lowercase().contains("mariadb") {
            Self::MariaDb
        } else {
            Self::MySql
        };
        let mut numbers = version
            .split(|character: char| !character.is_ascii_digit())
            .map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        Some((dialect, Version(next()?, next()?, next()?)))
    }

    /// Returns the first supported version. MySQL has `VALUES ROW(…)` since 8.0.19. MariaDB before 10.6 has
    /// reached its end of life.
    pub(crate) const fn first_version(self) -> Version {
        match self {
            Self::MySql => Version(8, 0, 19),
            Self::MariaDb => Version(10, 6, 0),
        }
    }

    /// Returns the word before each row of a table constructor.
    pub const fn row(self) -> &'static str {
        match self {
            Self::MySql => "ROW",
            Self::MariaDb => "",
        }
    }

    /// Returns the name of the dialect.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_names_the_dialect() {
        assert_eq!(Dialect::of("9.7.4-2"), Some((Dialect::MySql, Version(9, 7, 4))));
        assert_eq!(Dialect::of("8.0.43"), Some((Dialect::MySql, Version(8, 0, 43))));
        assert_eq!(
            Dialect::of("10.11.19-MariaDB-0+deb12u1"),
            Some((Dialect::MariaDb, Version(10, 11, 19)))
        );
        assert_eq!(
            Dialect::of("11.4.2-MariaDB-log"),
            Some((Dialect::MariaDb, Version(11, 4, 2)))
        );
        assert_eq!(Dialect::of("a fork"), None);
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(Version(10, 6, 0) > Version(8, 0, 43) && Version(8, 0, 19) > Version(8, 0, 2));
    }
}
