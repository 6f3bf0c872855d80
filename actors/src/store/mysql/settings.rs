//! A server's settings, and warnings about settings that endanger the promises.

use super::session::is_on;

/// Reads the settings that are checked.
pub(super) const SHOW: &str = "
SHOW GLOBAL VARIABLES WHERE Variable_name IN
    ('version', 'max_allowed_packet', 'innodb_flush_log_at_trx_commit', 'innodb_doublewrite', 'log_bin', 'sync_binlog', 'wsrep_on',
     'group_replication_single_primary_mode', 'group_replication_consistency', 'group_replication_group_name',
     'rpl_semi_sync_source_enabled', 'rpl_semi_sync_source_timeout', 'rpl_semi_sync_master_enabled', 'rpl_semi_sync_master_timeout')";

/// A server's settings, by name.
#[derive(Debug)]
pub(super) struct Settings(pub(super) Vec<(String, String)>);

/// If semi-synchronous replication has at least this timeout, it counts as never falling back to asynchronous
/// replication.
const NEVER_MS: u64 = 3_600_000;

impl Settings {
    /// Returns one setting; empty if the server does not have it.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(setting, _)| setting == name)
            .map_or("", |(_, value)| value.as_str())
    }

    /// Returns a setting that is a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }

    /// Returns warnings about settings under which confirmed commits could be lost, or two servers could
    /// accept writes.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |holds: bool, name: &str, why: &str| {
            if holds {
                warnings.push(format!("{name} = {}: {why}", self.get(name)));
            }
        };
        warn(
            self.get("innodb_flush_log_at_trx_commit") != "1",
            "innodb_flush_log_at_trx_commit",
            "a power failure loses commits; set it to 1",
        );
        let is_logged = is_on(self.get("log_bin"));
        warn(
            is_logged && self.get("sync_binlog") != "1",
            "sync_binlog",
            "a power failure loses commits, or lets replicas differ; set it to 1",
        );
        warn(
            !is_on(self.get("innodb_doublewrite")),
            "innodb_doublewrite",
            "a page torn by a power cut cannot be repaired",
        );
        warn(
            is_on(self.get("wsrep_on")),
            "wsrep_on",
            "with several writers, each stores issuances that the others lose; write to only one",
        );
        if !self.get("group_replication_group_name").is_empty() {
            let one_writer = is_on(self.get("group_replication_single_primary_mode"));
            warn(
                !one_writer,
                "group_replication_single_primary_mode",
                "fences do not hold between several primaries",
            );
            let consistency = self.get("group_replication_consistency");
            let waits = matches!(
                consistency,
                "BEFORE_ON_PRIMARY_FAILOVER" | "BEFORE" | "AFTER" | "BEFORE_AND_AFTER"
            );
            warn(
                !waits,
                "group_replication_consistency",
                "a new primary answers before it has all commits; set at least BEFORE_ON_PRIMARY_FAILOVER",
            );
        }
        for role in ["source", "master"] {
            let (enabled, limit) = (
                format!("rpl_semi_sync_{role}_enabled"),
                format!("rpl_semi_sync_{role}_timeout"),
            );
            let falls_back = self.number(&limit).is_some_and(|limit| limit < NEVER_MS);
            warn(
                is_on(self.get(&enabled)) && falls_back,
                &limit,
                "after this time replication is asynchronous, and a fail-over loses commits",
            );
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(changed: &[(&str, &str)]) -> Settings {
        let good = [
            ("innodb_flush_log_at_trx_commit", "1"),
            ("log_bin", "ON"),
            ("sync_binlog", "1"),
            ("innodb_doublewrite", "ON"),
        ];
        let all = changed
            .iter()
            .chain(&good)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings(all.collect())
    }

    #[test]
    fn settings_that_keep_commits_give_no_warning() {
        assert_eq!(settings(&[]).warnings(), Vec::<String>::new());
        assert_eq!(
            settings(&[("log_bin", "OFF"), ("sync_binlog", "0")]).warnings(),
            Vec::<String>::new()
        );
        assert_eq!(
            settings(&[
                ("rpl_semi_sync_source_enabled", "ON"),
                ("rpl_semi_sync_source_timeout", "4294967295")
            ])
            .warnings()
            .len(),
            0
        );
    }

    #[test]
    fn settings_that_lose_commits_or_allow_several_writers_give_a_warning() {
        let group = ("group_replication_group_name", "g");
        for changed in [
            &[("innodb_flush_log_at_trx_commit", "2")][..],
            &[("sync_binlog", "0")],
            &[("innodb_doublewrite", "OFF")],
            &[("wsrep_on", "ON")],
            &[
                group,
                ("group_replication_single_primary_mode", "OFF"),
                ("group_replication_consistency", "BEFORE"),
            ],
            &[
                group,
                ("group_replication_single_primary_mode", "ON"),
                ("group_replication_consistency", "EVENTUAL"),
            ],
            &[
                ("rpl_semi_sync_master_enabled", "ON"),
                ("rpl_semi_sync_master_timeout", "10000"),
            ],
        ] {
            assert_eq!(settings(changed).warnings().len(), 1, "{changed:?}");
        }
    }
}
