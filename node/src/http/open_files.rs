//! How many connections the system lets us have: each is an open file.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::refuse::REFUSALS_MAX;

/// Open files that are not connections: the database and its connections, links, logs, whatever libraries
/// open.
const OTHER_FILES: u64 = 256;

/// Raises this process's limit to the most it may have, and says how many connections fit if `wanted` do not.
pub(super) fn make_room(wanted: usize) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        tracing::warn!(%error, "the limit of open files was not raised");
    }
    let limit = getrlimit(Resource::Nofile).current;
    let fit = fit(wanted, limit);
    if fit < wanted {
        tracing::warn!(
            open_files_max = limit,
            connections_max = wanted,
            fit,
            "the system allows fewer open files than http.connections_max needs (ulimit -n, LimitNOFILE=); serving as many connections as fit"
        );
    }
    fit
}

/// How many of the wanted connections fit below this limit; none is no limit. One always does.
fn fit(wanted: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return wanted };
    let room = limit.saturating_sub(OTHER_FILES + REFUSALS_MAX as u64).max(1);
    usize::try_from(room).map_or(wanted, |room| room.min(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_other_files() {
        assert_eq!(fit(1000, None), 1000);
        assert_eq!(fit(1000, Some(100_000)), 1000);
        assert_eq!(fit(1000, Some(1024)), 1024 - 256 - REFUSALS_MAX);
        assert_eq!(fit(1000, Some(10)), 1);
    }
}
